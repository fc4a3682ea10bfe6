import test from 'ava'
import { Tokenizer } from '../../lib/policy/tokenizer.ts'
import { type TinyOptions, tinyTokenizerFiles } from '../helpers/tiny-tokenizer.ts'

/** Texts with the ids that Hugging Face tokenizers 0.23 gives for the same tokenizer.json. */
const references: Record<string, { options: TinyOptions; ids: [text: string, ids: number[]][] }> = {
  'flags lstrip, rstrip and single_word, and the longest match': {
    options: {
      added: [
        { content: '<s>', special: true },
        { content: '<l>', lstrip: true },
        { content: '<r>', rstrip: true },
        { content: 'word', single_word: true },
        { content: '<s><s>' },
        { content: '<lr>', lstrip: true, rstrip: true },
      ],
    },
    ids: [
      ['a <s> b', [97, 32, 256, 32, 98]],
      ['a <l> b', [97, 257, 32, 98]],
      ['a <r> b', [97, 32, 258, 98]],
      ['  <r>  <l>  ', [32, 32, 258, 257, 32, 32]],
      ['word', [259]],
      ['words', [119, 111, 114, 100, 115]],
      ['a word b', [97, 32, 259, 32, 98]],
      ['aword', [97, 119, 111, 114, 100]],
      ['_word word_', [95, 119, 111, 114, 100, 32, 119, 111, 114, 100, 95]],
      ['é word', [195, 169, 32, 259]],
      ['<s><s><s>', [260, 256]],
      ['<lr>  <lr>', [261, 261]],
      ['x\u00a0<l>', [120, 257]],
      ['<r>\u0085\n x', [258, 120]],
      ['word<s>word', [259, 256, 259]],
    ],
  },
  'tokens that are found in the normalized text': {
    options: {
      normalizer: { type: 'Lowercase' },
      added: [
        { content: '<Tag>', normalized: true },
        { content: '<Raw>' },
        { content: '<n>', normalized: true, rstrip: true },
      ],
    },
    ids: [
      ['<Tag>', [256]],
      ['<tag>', [256]],
      ['A<TAG>B', [97, 256, 98]],
      ['<Raw>', [257]],
      ['<raw>', [60, 114, 97, 119, 62]],
      ['a<N>  b', [97, 258, 98]],
    ],
  },
  'tokens that merges can spell, and words that go before merges': {
    options: {
      merges: [
        ['<', 't'],
        ['<t', '>'],
      ],
      words: ['hello', ' <t>'],
      added: [{ content: '<t>' }],
      ignoreMerges: true,
    },
    ids: [
      ['<t>', [257]],
      ['a<t>', [97, 257]],
      ['hello <t>', [258, 32, 257]],
    ],
  },
}

for (const [title, { options, ids }] of Object.entries(references)) {
  test(`ids are those of Hugging Face tokenizers: ${title}`, (t) => {
    const tokenizer = new Tokenizer(tinyTokenizerFiles(options))
    for (const [text, expected] of ids) t.deepEqual([...tokenizer.encode(text)], expected, text)
  })
}

test('a merge that spells an added token is taken apart in text that is not trusted', (t) => {
  const tokenizer = new Tokenizer(
    tinyTokenizerFiles(references['tokens that merges can spell, and words that go before merges']!.options),
  )
  t.deepEqual([...tokenizer.encode('<t>', { allowAddedTokens: false })], [...Buffer.from('<t>')])
  t.deepEqual([...tokenizer.encode('<t>')], [257])
})

test('normalizing cannot make a token of text that is not trusted', (t) => {
  const { options } = references['tokens that are found in the normalized text']!
  const tokenizer = new Tokenizer(tinyTokenizerFiles(options))
  const ids = (...texts: string[]) =>
    [...tokenizer.encodeSegments(texts.map((text, i) => ({ text, untrusted: i % 2 === 1 })))].filter(
      (id) => id > 255,
    )
  t.deepEqual(ids('', '<TAG>'), [])
  t.deepEqual(ids('<T', 'AG>'), [])
  t.deepEqual(ids('a<TAG>', '<TAG>', 'x<N>'), [256, 258])
})

test('white space is swallowed across a border, a word is seen across it', (t) => {
  const { options } = references['flags lstrip, rstrip and single_word, and the longest match']!
  const tokenizer = new Tokenizer(tinyTokenizerFiles(options))
  const encode = (...texts: string[]) => [
    ...tokenizer.encodeSegments(texts.map((text, i) => ({ text, untrusted: i % 2 === 1 }))),
  ]
  t.deepEqual(encode('a<r>', '  b'), [97, 258, 98])
  t.deepEqual(encode('', 'b  ', '<l>'), [98, 257])
  t.deepEqual(encode('word', 's'), [...Buffer.from('words')])
  t.deepEqual(encode('<s>', '<s>', '<s>'), [256, ...Buffer.from('<s>'), 256])
})
