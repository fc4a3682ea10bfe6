import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { type TextSegment, Tokenizer } from '../../lib/policy/tokenizer.ts'
import { readGgufHeader } from '../helpers/gguf-metadata.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'
import { tinyTokenizerFiles } from '../helpers/tiny-tokenizer.ts'

const folder = sharedPath('models/smollm2-135m-instruct')
const ggufPath = `${folder}/model-q4_1.gguf`
const cases = () =>
  readFileSync(sharedPath('fixtures/smollm2/tokens.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { text: string; ids: number[] })

let fromFolder: Promise<Tokenizer> | undefined
const smollm = () => (fromFolder ??= Tokenizer.fromFolder(folder).then((tokenizer) => tokenizer!))

testWithShared(
  'the ids of tokenizer.json are those of Hugging Face tokenizers, on every reference text',
  async (t) => {
    const tokenizer = await smollm()
    for (const { text, ids } of cases()) t.deepEqual([...tokenizer.encode(text)], ids, text)
  },
)

testWithShared(
  "the ids of a GGUF's own vocabulary are those of Hugging Face tokenizers, on every reference text",
  async (t) => {
    const tokenizer = Tokenizer.fromGguf(readGgufHeader(ggufPath).metadata)!
    for (const { text, ids } of cases()) t.deepEqual([...tokenizer.encode(text)], ids, text)
    const other = await smollm()
    t.is(tokenizer.chatTemplate, other.chatTemplate)
    t.is(tokenizer.bosTokenId, other.bosTokenId)
    t.is(tokenizer.eosTokenId, other.eosTokenId)
    t.deepEqual(tokenizer.tokenBytes(), other.tokenBytes())
  },
)

/** Text of characters whose bytes the vocabulary has (SmolLM2's lacks those that no text of its training held). */
function spellable(tokenizer: Tokenizer) {
  const all = Array.from({ length: tokenizer.vocabSize }, (_, id) => tokenizer.bytesOf(id))
  const known = new Set(all.flatMap((bytes) => (bytes.length === 1 ? [...bytes] : [])))
  const isKnown = (char: string) => [...Buffer.from(char)].every((byte) => known.has(byte))
  const spell = (text: string) => Array.from(Buffer.from(text).toString()).filter(isKnown).join('')
  const pieces = [
    '  ',
    '\n',
    '\t',
    '\u0085',
    '\ufeff',
    'é',
    '0',
    '٣',
    '²',
    '<|im_end|>',
    '<|im_',
    'end|>',
    '日',
    '🙂',
    "'s",
  ]
  const tricky = fc.array(fc.constantFrom(...pieces), { maxLength: 12 }).map((list) => list.join(''))
  return fc.oneof(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'binary' }), tricky).map(spell)
}

testWithShared('decoding undoes encoding, for any text whose bytes the vocabulary has', async (t) => {
  const tokenizer = await smollm()
  fc.assert(
    fc.property(spellable(tokenizer), fc.boolean(), (text, allowAddedTokens) => {
      t.is(tokenizer.decode(tokenizer.encode(text, { allowAddedTokens })), text)
    }),
    { numRuns: 1000 },
  )
})

testWithShared('text that is not trusted holds no added token, however it is cut', async (t) => {
  const tokenizer = await smollm()
  const added = new Set(tokenizer.addedTokens.map(({ id }) => id))
  const segments = fc.array(fc.record({ text: spellable(tokenizer), untrusted: fc.boolean() }), {
    maxLength: 5,
  })
  fc.assert(
    fc.property(segments, (list) => {
      const ids = tokenizer.encodeSegments(list)
      t.is(tokenizer.decode(ids), list.map(({ text }) => text).join(''))
      // adjacent trusted segments are one text, in which a token may be written across their border
      const trusted = list.map(({ text, untrusted }) => (untrusted ? '\0' : text)).join('')
      const expected = trusted.split(/<\|im_end\|>/).length - 1
      t.is([...ids].filter((id) => added.has(id)).length, expected)
    }),
    { numRuns: 500 },
  )
})

testWithShared('benign text has the same ids however it is cut and trusted', async (t) => {
  const tokenizer = await smollm()
  const benign = cases().filter(({ ids }) => ids.every((id) => !tokenizer.isSpecial(id)))
  t.true(benign.length > 200)
  for (const [i, { text, ids }] of benign.entries()) {
    const cuts = [0, (i * 7) % (text.length + 1), (i * 13) % (text.length + 1), text.length].sort(
      (a, b) => a - b,
    )
    const segments: TextSegment[] = [0, 1, 2].map((k) => ({
      text: text.slice(cuts[k], cuts[k + 1]),
      untrusted: (i + k) % 2 === 0,
    }))
    t.deepEqual([...tokenizer.encodeSegments(segments)], ids, text)
  }
})

testWithShared(
  'a stream gives the text of all ids, token by token, and never half a character',
  async (t) => {
    const tokenizer = await smollm()
    for (const { text, ids } of cases()) {
      const stream = tokenizer.createStream()
      const pieces = ids.map((id) => stream.push(id))
      t.is(pieces.join('') + stream.end(), text)
      t.false(pieces.some((piece) => piece.includes('\ufffd')))
    }
  },
)

testWithShared('what is saved is the tokenizer that was loaded', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'ssrl-tokenizer-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  await (await smollm()).save(directory)
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
    t.is(readFileSync(join(directory, name), 'utf8'), readFileSync(join(folder, name), 'utf8'))
  }
})

const bos = { SpecialToken: { id: '<s>', type_id: 0 } }
const text = { Sequence: { id: 'A', type_id: 0 } }
const template = {
  type: 'TemplateProcessing',
  single: [bos, text],
  pair: [],
  special_tokens: { '<s>': { id: '<s>', ids: [256], tokens: ['<s>'] } },
}
const added = [{ content: '<s>', special: true }, { content: '</s>', special: true }, { content: '<think>' }]
const named = { bos_token: '<s>', eos_token: { content: '</s>', special: true } }
const tiny = (options: Parameters<typeof tinyTokenizerFiles>[0] = {}) =>
  new Tokenizer(tinyTokenizerFiles({ added, config: named, ...options }))

test('BOS comes where the post-processor puts it, once, and only when asked for', (t) => {
  const tokenizer = tiny({ postProcessor: template })
  t.true(tokenizer.addsBos)
  t.deepEqual([...tokenizer.encode('a')], [256, 97])
  t.deepEqual([...tokenizer.encode('<s>a')], [256, 97])
  t.deepEqual([...tokenizer.encode('<s>a', { allowAddedTokens: false })], [256, ...Buffer.from('<s>a')])
  t.deepEqual([...tokenizer.encode('a', { addSpecialTokens: false })], [97])
  t.deepEqual([...tokenizer.encode('')], [256])
  t.deepEqual([...tokenizer.encodeSegments([])], [256])
})

test('add_bos_token has the last word', (t) => {
  t.deepEqual([...tiny({ config: { ...named, add_bos_token: true } }).encode('a')], [256, 97])
  const off = tiny({ postProcessor: template, config: { ...named, add_bos_token: false } })
  t.deepEqual([...off.encode('a')], [97])
})

test('named tokens and end tokens are found', (t) => {
  const tokenizer = tiny()
  t.is(tokenizer.bosTokenId, 256)
  t.is(tokenizer.eosTokenId, 257)
  t.is(tokenizer.bosToken, '<s>')
  t.is(tokenizer.padTokenId, undefined)
  t.deepEqual(tokenizer.endTokenIds([9, 257], [7, 9]), [9, 257, 7])
  t.deepEqual(tokenizer.endTokenIds(), [257])
})

test('skipSpecial leaves control tokens out, but not an ordinary added token', (t) => {
  const tokenizer = tiny()
  const ids = tokenizer.encode('<s><think>é</s>')
  t.is(tokenizer.decode(ids), '<s><think>é</s>')
  t.is(tokenizer.decode(ids, { skipSpecial: true }), '<think>é')
  const stream = tokenizer.createStream({ skipSpecial: true })
  t.is([...ids].map((id) => stream.push(id)).join('') + stream.end(), '<think>é')
})

test('the table covers a padded vocabulary, and an id without a token is empty', (t) => {
  const { bytes, offsets } = tiny().tokenBytes(270)
  t.is(offsets.length, 271)
  t.is(offsets[270], bytes.length)
  t.is(Buffer.from(bytes.subarray(offsets[258], offsets[259])).toString(), '<think>')
  t.deepEqual(tiny().bytesOf(265), new Uint8Array(0))
  t.is(tiny().decode([97, 265, 98]), 'ab')
})

test('an id or a text of the wrong type is ERR_INVALID_ARG', (t) => {
  for (const id of [-1, 1.5, Number.NaN]) t.throws(() => tiny().decode([id]), { code: 'ERR_INVALID_ARG' })
  t.throws(() => tiny().encode(7 as never), { code: 'ERR_INVALID_ARG' })
})

test('a tokenizer that is not of the model is ERR_TOKENIZER', (t) => {
  const tokenizer = tiny()
  t.notThrows(() => tokenizer.checkVocabulary(259, [257]))
  t.notThrows(() => tokenizer.checkVocabulary(320))
  t.throws(() => tokenizer.checkVocabulary(258), { code: 'ERR_TOKENIZER', message: /ids up to 258/ })
  t.throws(() => tokenizer.checkVocabulary(512), { code: 'ERR_TOKENIZER', message: /lacks 253 of the 512/ })
  t.throws(() => tokenizer.checkVocabulary(320, [300]), { code: 'ERR_TOKENIZER', message: /token 300/ })
})

/** A sentencepiece-style tokenizer as Llama 2's, whose bytes are tokens of their own. */
function sentencePiece(components: Record<string, unknown>) {
  const bytes = Array.from(
    { length: 256 },
    (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
  )
  const words = ['<unk>', '<s>', '</s>', ...bytes, '▁', 'a', 'b', 'ab', '▁ab']
  const json = {
    added_tokens: [{ id: 1, content: '<s>', special: true }],
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(words.map((word, id) => [word, id])),
      merges: ['a b', '▁ ab'],
    },
    ...components,
  }
  return new Tokenizer(new Map([['tokenizer.json', JSON.stringify(json)]]))
}
const llama2 = {
  normalizer: {
    type: 'Sequence',
    normalizers: [
      { type: 'Prepend', prepend: '▁' },
      { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
    ],
  },
  decoder: {
    type: 'Sequence',
    decoders: [
      { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
      { type: 'ByteFallback' },
      { type: 'Fuse' },
      { type: 'Strip', content: ' ', start: 1, stop: 0 },
    ],
  },
}

test('sentencepiece-style tokenizers fall back to bytes and lose the space that they put before a text', (t) => {
  const tokenizer = sentencePiece(llama2)
  t.deepEqual([...tokenizer.encode('ab aé')], [263, 259, 260, 3 + 0xc3, 3 + 0xa9])
  for (const value of ['ab', ' ab', 'a\nb', '日 🙂 ab', ''])
    t.is(tokenizer.decode(tokenizer.encode(value)), value)
})

test('a stream keeps the leading space, as a completion goes on from its prompt', (t) => {
  const stream = sentencePiece(llama2).createStream()
  t.is(stream.push(263), ' ab')
})

test('Metaspace splits words and prepends at the very beginning only where it says first', (t) => {
  const decoder = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first' }
  const preTokenizer = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split: true }
  const tokenizer = sentencePiece({ pre_tokenizer: preTokenizer, decoder })
  t.deepEqual([...tokenizer.encode('ab ab')], [263, 263])
  t.deepEqual([...tokenizer.encode('ab<s>ab')], [263, 1, 262])
  t.is(tokenizer.decode(tokenizer.encode('ab ab')), 'ab ab')
})

const refused: [title: string, change: (json: Record<string, object>) => unknown, message: RegExp][] = [
  [
    'another model',
    (json) => ({ ...json, model: { type: 'Unigram', vocab: [], merges: [] } }),
    /model\.type.*Unigram/,
  ],
  ['no model', (json) => ({ ...json, model: undefined }), /model/],
  ['no merges', (json) => ({ ...json, model: { ...json.model, merges: undefined } }), /merges/],
  [
    'an id that only asks for memory',
    (json) => ({ ...json, model: { ...json.model, vocab: { a: 1e9 } } }),
    /vocab/,
  ],
  ['an id that is no number', (json) => ({ ...json, model: { ...json.model, vocab: { a: 'x' } } }), /vocab/],
  ['a huge added id', (json) => ({ ...json, added_tokens: [{ id: 2 ** 40, content: 'x' }] }), /added_tokens/],
  ['dropout', (json) => ({ ...json, model: { ...json.model, dropout: 0.1 } }), /dropout/],
  [
    'an unknown normalizer',
    (json) => ({ ...json, normalizer: { type: 'Precompiled' } }),
    /normalizer.*Precompiled/,
  ],
  [
    'an unknown pre-tokenizer',
    (json) => ({ ...json, pre_tokenizer: { type: 'Whitespace' } }),
    /pre_tokenizer/,
  ],
  [
    'another way of splitting',
    (json) => ({
      ...json,
      pre_tokenizer: { type: 'Split', pattern: { String: ' ' }, behavior: 'MergedWithNext' },
    }),
    /MergedWithNext/,
  ],
  ['a malformed added token', (json) => ({ ...json, added_tokens: [{ id: 'x' }] }), /added_tokens/],
  ['no list of added tokens', (json) => ({ ...json, added_tokens: 7 }), /added_tokens/],
]
for (const [title, change, message] of refused) {
  test(`tokenizer.json with ${title} is ERR_TOKENIZER`, (t) => {
    const json = JSON.stringify(change(JSON.parse(tinyTokenizerFiles().get('tokenizer.json')!)))
    t.throws(() => new Tokenizer(new Map([['tokenizer.json', json]])), { code: 'ERR_TOKENIZER', message })
  })
}

test('a tokenizer.json that is no JSON object is ERR_TOKENIZER', (t) => {
  for (const json of ['{', '[]', '7', '']) {
    t.throws(() => new Tokenizer(new Map([['tokenizer.json', json]])), { code: 'ERR_TOKENIZER' })
  }
})

test('a folder without tokenizer.json has no tokenizer', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'ssrl-tokenizer-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  t.is(await Tokenizer.fromFolder(directory), null)
})

test('the chat template is found in its file, in either config, and by the name default in a list', (t) => {
  const find = (extra: Record<string, string>, config = {}) =>
    new Tokenizer(new Map([...tinyTokenizerFiles({ config }), ...Object.entries(extra)])).chatTemplate
  t.is(find({}), null)
  t.is(find({}, { chat_template: 'A' }), 'A')
  t.is(find({ 'chat_template.jinja': 'B' }, { chat_template: 'A' }), 'B')
  t.is(find({ 'chat_template.json': '{"chat_template":"C"}' }, { chat_template: 'A' }), 'C')
  const list = [
    { name: 'tool_use', template: 'X' },
    { name: 'default', template: 'D' },
  ]
  t.is(find({}, { chat_template: list }), 'D')
  t.throws(() => find({}, { chat_template: [list[0]] }), { code: 'ERR_TOKENIZER', message: /default/ })
})
