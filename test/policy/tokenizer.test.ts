import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { Tokenizer } from '../../lib/policy/tokenizer.ts'
import { readGgufHeader } from '../helpers/gguf-metadata.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'

const folder = sharedPath('models/smollm2-135m-instruct')
const ggufPath = `${folder}/model-q4_1.gguf`
const cases = () =>
  readFileSync(sharedPath('fixtures/smollm2/tokens.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { text: string; ids: number[] })

let fromFolder: Promise<Tokenizer> | undefined
let fromGguf: Tokenizer | undefined
const smollm = () => (fromFolder ??= Tokenizer.fromFolder(folder).then((tokenizer) => tokenizer!))
const smollmGguf = () => (fromGguf ??= Tokenizer.fromGguf(readGgufHeader(ggufPath).metadata)!)

testWithShared(
  'the ids of tokenizer.json are those of Hugging Face tokenizers, on every reference text',
  async (t) => {
    const tokenizer = await smollm()
    for (const { text, ids } of cases()) t.deepEqual([...tokenizer.encode(text)], ids, text)
  },
)

testWithShared(
  "the ids of a GGUF's own vocabulary are those of Hugging Face tokenizers, on every reference text",
  (t) => {
    const tokenizer = smollmGguf()
    for (const { text, ids } of cases()) t.deepEqual([...tokenizer.encode(text)], ids, text)
  },
)

testWithShared('decoding undoes encoding, for any text whose bytes the vocabulary has', async (t) => {
  const tokenizer = await smollm()
  const known = new Set(
    Array.from({ length: tokenizer.vocabSize }, (_, id) => tokenizer.bytesOf(id)).flatMap((bytes) =>
      bytes.length === 1 ? [...bytes] : [],
    ),
  )
  const spell = (text: string) =>
    Array.from(Buffer.from(text).toString())
      .filter((char) => [...Buffer.from(char)].every((byte) => known.has(byte)))
      .join('')

  const text = fc
    .oneof(
      fc.string({ unit: 'grapheme' }),
      fc.string({ unit: 'binary' }),
      fc.string({ unit: fc.constantFrom(...'  \n\t\u0085\ufeffaé0٣²<|im_end|>日🙂') }),
    )
    .map(spell)
  fc.assert(
    fc.property(text, (value) => t.is(tokenizer.decode(tokenizer.encode(value)), value)),
    { numRuns: 1000 },
  )
})
