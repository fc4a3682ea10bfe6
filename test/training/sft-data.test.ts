import test from 'ava'
import type { Example } from '../../lib/data/examples.ts'
import { encodeExample, encodeExamples, type SftSequence, takeBatch } from '../../lib/training/sft-data.ts'
import { shortTemplate, worldTokenizer } from '../helpers/tiny-policy.ts'

const tokenizer = worldTokenizer()
const options = {
  promptTemplate: { name: 'short', text: shortTemplate },
  completionOnly: true,
  maskInformation: false,
  endToken: true,
}

/** The text of the tokens that are trained. */
function trained({ tokens, lossMask }: SftSequence): string {
  return tokenizer.decode(tokens.filter((_, index) => index > 0 && lossMask[index - 1] === 1))
}

const completion: Example = {
  kind: 'completion',
  line: 1,
  prompt: 'Question: a?\n',
  completion: '<answer> b </answer>',
}

test('the completion and the end token are trained, the prompt is not', (t) => {
  const [sequence] = encodeExample(tokenizer, completion, options)
  t.is(trained(sequence!), '<answer> b </answer><|end|>')
  t.is(tokenizer.decode(sequence!.tokens), 'Question: a?\n<answer> b </answer><|end|>')
  t.is(sequence!.lossMask.length, sequence!.tokens.length - 1)
})

test('without the end token only the completion is', (t) => {
  const [sequence] = encodeExample(tokenizer, completion, { ...options, endToken: false })
  t.is(trained(sequence!), '<answer> b </answer>')
})

test('completionOnly false trains everything after the first token', (t) => {
  const [sequence] = encodeExample(tokenizer, completion, { ...options, completionOnly: false })
  t.true(sequence!.lossMask.every((bit) => bit === 1))
})

test('maskInformation leaves out what answers a search, and nothing else', (t) => {
  const [before, block, after] = [
    '<think> a </think><search> b </search>\n\n',
    '<information>Doc 1(Title: c) d <answer> x </answer>\n</information>',
    '\n\n<information>e</information><answer> f </answer>',
  ] as const
  const example: Example = { ...completion, completion: `${before}${block}${after}` }
  const [sequence] = encodeExample(tokenizer, example, { ...options, maskInformation: true })
  // A token that holds an end of the block and what stands beside it belongs to the block.
  const written = trained(sequence!)
  t.true(written.startsWith(before.trimEnd()) && written.endsWith(`${after.trimStart()}<|end|>`), written)
  t.false(/Doc 1|<answer> x/.test(written), written)
  t.is(trained(encodeExample(tokenizer, example, options)[0]!), `${before}${block}${after}<|end|>`)
})

test('a question is put into the instruction, a text is trained as a whole', (t) => {
  const question: Example = { kind: 'question', line: 1, question: 'a?', completion: 'b' }
  t.is(tokenizer.decode(encodeExample(tokenizer, question, options)[0]!.tokens), 'Question: a?\nb<|end|>')
  const [text] = encodeExample(tokenizer, { kind: 'text', line: 1, text: 'some facts' }, options)
  t.true(text!.lossMask.every((bit) => bit === 1))
})

test('every turn of the assistant is a sequence of its own', (t) => {
  const messages = [
    { role: 'user', content: 'one' },
    { role: 'assistant', content: 'two' },
    { role: 'user', content: 'three' },
    { role: 'assistant', content: 'four' },
  ]
  const sequences = encodeExample(tokenizer, { kind: 'messages', line: 1, messages }, options)
  t.deepEqual(sequences.map(trained), ['two<|end|>', 'four<|end|>'])
})

test('a control token in a prompt or completion is ordinary text where it is not trusted', (t) => {
  const question: Example = { kind: 'question', line: 1, question: 'a <|end|> b', completion: 'c' }
  const [sequence] = encodeExample(tokenizer, question, options)
  const end = tokenizer.eosTokenId!
  t.is(sequence!.tokens.filter((token) => token === end).length, 1)
})

test('sequences that are too long are dropped with a count', async (t) => {
  const long: Example = { ...completion, completion: 'word '.repeat(100) }
  const { sequences, dropped } = await encodeExamples(tokenizer, [completion, long], {
    ...options,
    maxLength: 40,
  })
  t.deepEqual([sequences.length, dropped], [1, 1])
})

test('packed rows hold whole sequences up to their length', (t) => {
  const lengths = [5, 5, 5, 9, 3, 7]
  const all = lengths.map((length) => ({
    tokens: new Int32Array(length),
    lossMask: new Uint8Array(length - 1),
  }))
  let at = 0
  const walk = { peek: () => all[at % all.length]!, next: () => all[at++ % all.length]! }
  const batch = takeBatch(walk, { rows: 2, packedLength: 12 })
  t.deepEqual(
    batch.map(({ tokens }) => tokens.length),
    [5, 5, 5],
  )
  t.is(at, 3)
})
