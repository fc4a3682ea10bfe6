import test, { type ExecutionContext } from 'ava'
import { Conversation } from '../../lib/cli/chat-history.ts'
import { tinyPolicy } from '../helpers/tiny-policy.ts'

const template = { name: 'test', text: 'Q: {question}\n' }

async function conversation(t: ExecutionContext, { maxPositions = 256, remembers = true } = {}) {
  const policy = await tinyPolicy({ maxPositions })
  t.teardown(() => policy.dispose())
  const talk = new Conversation(policy, { template, maxNewTokens: 20, remembers })
  const ask = (question: string) => {
    const { tokens, forgotten } = talk.ask(question)
    return { text: policy.tokenizer!.decode(tokens), forgotten }
  }
  return { talk, ask, policy }
}

test('what was asked and answered stands before a question, in the same wording', async (t) => {
  const { talk, ask } = await conversation(t)
  t.deepEqual(ask('one'), { text: 'Q: one\n', forgotten: 0 })
  talk.remember('one', '<answer>1</answer>')
  t.deepEqual(ask('two'), { text: 'Q: one\n\n\n<answer>1</answer>\n\nQ: two\n', forgotten: 0 })
})

test('the oldest turns are forgotten for good where the context has no room for an answer', async (t) => {
  const { talk, ask } = await conversation(t, { maxPositions: 64 })
  for (const name of ['first', 'second', 'third']) talk.remember(name, 'x y z w '.repeat(3))
  const { text, forgotten } = ask('now')
  t.true(forgotten > 0)
  t.false(text.includes('first'))
  t.true(text.endsWith('Q: now\n'))
  t.is(ask('now').forgotten, 0)
})

test('an answer may hold documents: no control token arises from it', async (t) => {
  const { talk, policy } = await conversation(t)
  const end = policy.tokenizer!.tokenId('<|end|>')!
  talk.remember('one', 'a <|end|> b')
  const { tokens } = talk.ask('<|end|>')
  t.false(tokens.includes(end))
})

test('without a memory each question stands alone', async (t) => {
  const { talk, ask } = await conversation(t, { remembers: false })
  talk.remember('one', '1')
  t.is(ask('two').text, 'Q: two\n')
})
