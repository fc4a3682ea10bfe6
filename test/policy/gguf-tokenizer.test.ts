import test from 'ava'
import { bytesToByteLevel } from '../../lib/policy/byte-decoder.ts'
import type { GgufEntry, GgufMetadata, GgufValue } from '../../lib/policy/gguf-config.ts'
import { ggufTokenizerMetadata } from '../../lib/policy/gguf-tokenizer.ts'
import { Tokenizer } from '../../lib/policy/tokenizer.ts'
import { readGgufHeader } from '../helpers/gguf-metadata.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'
import { tinyTokenizerFiles } from '../helpers/tiny-tokenizer.ts'

const values = (entries: Record<string, GgufEntry>): GgufMetadata =>
  Object.fromEntries(Object.entries(entries).map(([key, { value }]) => [key, value as GgufValue]))

const bytes = Array.from({ length: 256 }, (_, byte) => bytesToByteLevel(Uint8Array.of(byte)))
const spell = (text: string) => bytesToByteLevel(Buffer.from(text))
const merges: [string, string][] = [
  ['1', '2'],
  ['12', '3'],
  [' ', '1'],
  ['!', '!'],
  ['\n', '\n'],
  ['o', 'n'],
  ["'", 'S'],
]
const words = merges.map(([a, b]) => spell(a + b))
/** Ids: bytes, then these merges, a word that no merge spells, a control token, an ordinary added one, padding. */
const tokens = [...bytes, ...words, spell('word'), '<|end|>', '<think>', '[PAD266]']
const types = tokens.map((_, id) => ({ 264: 3, 265: 4, 266: 5 })[id] ?? 1)

function metadata(pre: string | undefined, extra: Record<string, GgufValue> = {}): GgufMetadata {
  const entries: Record<string, GgufValue> = {
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.token_type': Int32Array.from(types),
    'tokenizer.ggml.merges': merges.map(([a, b]) => `${spell(a)} ${spell(b)}`),
    'tokenizer.ggml.bos_token_id': 264,
    'tokenizer.ggml.eos_token_id': 264,
    ...(pre === undefined ? {} : { 'tokenizer.ggml.pre': pre }),
    ...extra,
  }
  return entries
}

/** Words that a text falls into, told from the merges that could happen. */
const split = (pre: string | undefined, text: string) => {
  const tokenizer = Tokenizer.fromGguf(metadata(pre, { 'tokenizer.ggml.add_bos_token': false }))!
  return [...tokenizer.encode(text)].map((id) => Buffer.from(tokenizer.bytesOf(id)).toString())
}

test('each pre-tokenizer cuts text in its own way', (t) => {
  t.deepEqual(split('smollm', 'x123'), ['x', '1', '2', '3'])
  t.deepEqual(split('gpt-2', 'x123'), ['x', '123'])
  t.deepEqual(split('smollm', 'x 1'), ['x', ' ', '1'])
  t.deepEqual(split('llama-bpe', 'x123123'), ['x', '123', '123'])
  t.deepEqual(split('qwen2', 'x123'), ['x', '1', '2', '3'])
  t.deepEqual(split('gpt-2', 'x 1'), ['x', ' 1'])
  t.deepEqual(split('default', 'x123'), ['x', '123'])
  t.deepEqual(split(undefined, 'x123'), ['x', '123'])
  t.deepEqual(split('llama-bpe', "'S"), ["'S"])
  t.deepEqual(split('smollm', "'S"), ["'", 'S'])
  t.deepEqual(split('llama-bpe', 'word'), ['word'])
  t.deepEqual(split('qwen2', 'word'), ['w', 'o', 'r', 'd'])
  t.deepEqual(split('llama-bpe', '!!\n\n'), ['!!', '\n\n'])
})

test('qwen2 brings text into NFC first, as its models do', (t) => {
  const nfc = Tokenizer.fromGguf(metadata('qwen2'))!
  t.deepEqual([...nfc.encode('e\u0301')], [...nfc.encode('é')])
})

test('names that mean the same are the same', (t) => {
  for (const [alias, pre] of [
    ['llama3', 'llama-bpe'],
    ['llama-v3', 'llama-bpe'],
    ['deepseek-r1-qwen', 'qwen2'],
  ]) {
    t.deepEqual(split(alias, "x 123 word'S"), split(pre, "x 123 word'S"))
  }
})

test('BOS is added where the file says so, or else where llama.cpp does', (t) => {
  const encode = (pre: string, extra = {}) => [...Tokenizer.fromGguf(metadata(pre, extra))!.encode('a')]
  t.deepEqual(encode('llama-bpe'), [264, 97])
  t.deepEqual(encode('smollm'), [97])
  t.deepEqual(encode('llama-bpe', { 'tokenizer.ggml.add_bos_token': false }), [97])
  t.deepEqual(encode('smollm', { 'tokenizer.ggml.add_bos_token': true }), [264, 97])
})

test('control tokens are special, user-defined ones are not, unused ones are none', (t) => {
  const tokenizer = Tokenizer.fromGguf(metadata('smollm'))!
  t.deepEqual([...tokenizer.encode('<|end|><think>')], [264, 265])
  t.is(tokenizer.decode([264, 265, 266], { skipSpecial: true }), '<think>')
  t.is(tokenizer.tokenId('[PAD266]'), undefined)
})

const refused: [key: string, value: GgufValue][] = [
  ['tokenizer.ggml.model', 'llama'],
  ['tokenizer.ggml.model', 'bert'],
  ['tokenizer.ggml.model', 't5'],
  ['tokenizer.ggml.pre', 'deepseek-llm'],
  ['tokenizer.ggml.pre', 'tekken'],
  ['tokenizer.ggml.pre', '__proto__'],
  ['tokenizer.ggml.tokens', 'abc'],
  ['tokenizer.ggml.tokens', [1, 2]],
  ['tokenizer.ggml.merges', 7],
  ['tokenizer.ggml.bos_token_id', 4000],
  ['tokenizer.ggml.eos_token_id', 'x'],
]
for (const [key, value] of refused) {
  test(`${key} = ${JSON.stringify(value)} is ERR_MODEL_FORMAT naming it`, (t) => {
    const error = t.throws(() => Tokenizer.fromGguf(metadata('smollm', { [key]: value })), {
      code: 'ERR_MODEL_FORMAT',
    })
    t.true(error.message.includes(key), error.message)
  })
}

test('a file without a tokenizer has none', (t) => {
  t.is(Tokenizer.fromGguf({ 'general.architecture': 'llama' }), null)
  t.is(Tokenizer.fromGguf({ 'tokenizer.ggml.model': 'none' }), null)
})

for (const pre of ['smollm', 'llama-bpe', 'qwen2', 'gpt-2', 'default']) {
  test(`a ${pre} tokenizer that is written as metadata and read again is the same`, (t) => {
    const extra = { 'tokenizer.chat_template': 'x', 'tokenizer.ggml.padding_token_id': 264 }
    const tokenizer = Tokenizer.fromGguf(metadata(pre, extra))!
    const entries = ggufTokenizerMetadata(tokenizer, tokens.length, [264, 265])
    t.is(entries['tokenizer.ggml.pre']!.value, pre)
    t.is(entries['tokenizer.ggml.eot_token_id']!.value, 265)
    t.deepEqual(entries['tokenizer.ggml.token_type']!.value, Int32Array.from(types))
    const again = Tokenizer.fromGguf(values(entries))!
    t.deepEqual(again.files, tokenizer.files)
  })
}

test('ids that only the model has become padding', (t) => {
  const tokenizer = new Tokenizer(tinyTokenizerFiles({ added: [{ content: '<s>', special: true }] }))
  const entries = ggufTokenizerMetadata(tokenizer, 260, [])
  const list = entries['tokenizer.ggml.tokens']!.value as string[]
  t.deepEqual(list.slice(255), ['ÿ', '<s>', '[PAD257]', '[PAD258]', '[PAD259]'])
  t.deepEqual([...(entries['tokenizer.ggml.token_type']!.value as Int32Array).slice(255)], [1, 3, 5, 5, 5])
  t.is(entries['tokenizer.ggml.pre']!.value, 'gpt-2')
})

test('a tokenizer that GGUF has no name for is ERR_TOKENIZER', (t) => {
  const files = tinyTokenizerFiles({ normalizer: { type: 'Lowercase' } })
  const code = 'ERR_TOKENIZER'
  t.throws(() => ggufTokenizerMetadata(new Tokenizer(files), 256, []), {
    code,
    message: /Hugging Face layout/,
  })
})

testWithShared("SmolLM2's tokenizer.json becomes the metadata that its GGUF has", async (t) => {
  const folder = sharedPath('models/smollm2-135m-instruct')
  const { metadata: original } = readGgufHeader(`${folder}/model-q4_1.gguf`)
  const tokenizer = (await Tokenizer.fromFolder(folder))!
  const written = values(ggufTokenizerMetadata(tokenizer, 49152, [2]))
  for (const [key, value] of Object.entries(written)) {
    const expected = original[key]
    t.deepEqual(typeof value === 'object' ? Array.from(value) : value, expected, key)
  }
})
