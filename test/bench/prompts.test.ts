import test from 'ava'
import { byteTokenizer } from '../../bench/peers/tiny-models.ts'
import { promptsOf, readQuestions } from '../../bench/prompts.ts'

test('prompts have exactly the length that was asked for, and their text has the same ids again', async (t) => {
  const tokenizer = byteTokenizer(1024)
  const { tokens, texts } = promptsOf(await readQuestions(), tokenizer, { count: 9, length: 37 })
  t.is(tokens.length, 9)
  for (const [i, ids] of tokens.entries()) {
    t.is(ids.length, 37)
    t.deepEqual([...tokenizer.encode(texts[i]!)], ids)
  }
  t.is(new Set(texts).size, 9)
})

test('a prompt may be longer than one question is', async (t) => {
  const { tokens } = promptsOf(await readQuestions(), byteTokenizer(1024), { count: 1, length: 4096 })
  t.is(tokens[0]!.length, 4096)
})
