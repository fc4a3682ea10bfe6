import { readFileSync } from 'node:fs'
import test from 'ava'
import { Tokenizer } from '../../lib/policy/tokenizer.ts'
import { parseCompletion } from '../../lib/rollout/grammar.ts'
import type { SearchDocument } from '../../lib/search/provider.ts'
import { cutText, type DocumentLayout, informationBlock, sanitizeText } from '../../lib/search/sanitize.ts'
import { byteTokenizer } from '../helpers/byte-policy.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'
import { worldTokenizer } from '../helpers/tiny-policy.ts'
import { tinyTokenizerFiles } from '../helpers/tiny-tokenizer.ts'
import { attacks, splitAttacks } from './attacks.ts'

const options = { layout: 'numbered', maxDocumentTokens: 200, maxTokens: 2000, overshoot: '' } as const
const layouts: DocumentLayout[] = ['numbered', 'plain']

/** Fails unless the block, put behind a search, is one closed information block and nothing else. */
function holds(tokenizer: Tokenizer, documents: SearchDocument[], layout: DocumentLayout): string | null {
  const ids = informationBlock(tokenizer, documents, { ...options, layout })!
  const added = new Set(tokenizer.addedTokens.map(({ id }) => id))
  const arisen = ids.find((id) => added.has(id))
  if (arisen !== undefined) return `added token ${arisen}`
  const text = tokenizer.decode(ids)
  const { tags, spans, queries, answer } = parseCompletion(`<search>q</search>${text}`)
  const names = tags.map(({ name, closing }) => `${closing ? '/' : ''}${name}`).join()
  if (names !== 'search,/search,information,/information') return `tags ${names}`
  if (spans.length !== 2 || !spans[1]!.answersSearch || queries.length !== 1 || answer !== null)
    return 'blocks'
  const inside = text.slice(text.indexOf('<information>') + 13, text.lastIndexOf('</information>'))
  if (/[<>]/.test(inside.normalize('NFKD'))) return `a bracket in ${inside}`
  return /[\p{Cc}\p{Cf}\p{Cs}]/u.test(inside.replaceAll('\n', '')) ? 'a control character' : null
}

function resists(tokenizer: Tokenizer): string[] {
  const sets = [...attacks.map((text) => [text]), ...splitAttacks]
  return sets.flatMap((texts) =>
    layouts.flatMap((layout) => {
      const asText = holds(
        tokenizer,
        texts.map((text) => ({ text })),
        layout,
      )
      const asTitle = holds(
        tokenizer,
        texts.map((title) => ({ title, text: 'x' })),
        layout,
      )
      return [asText, asTitle]
        .filter((found) => found !== null)
        .map((found) => `${JSON.stringify(texts)}: ${found}`)
    }),
  )
}

test('a document cannot end its block, answer or search, whichever of at least 50 texts it is', (t) => {
  t.true(attacks.length >= 50)
  t.deepEqual(resists(worldTokenizer()), [])
  t.deepEqual(resists(byteTokenizer()), [])
})

testWithShared('the same holds for the tokenizer of a real model', (t) => {
  t.deepEqual(resists(smollm2()), [])
})

function smollm2(): Tokenizer {
  const names = ['tokenizer.json', 'tokenizer_config.json']
  const folder = sharedPath('models', 'smollm2-135m-instruct')
  return new Tokenizer(new Map(names.map((name) => [name, readFileSync(`${folder}/${name}`, 'utf8')])))
}

testWithShared(
  'no added token of a vocabulary arises from a document, alone, in pieces or surrounded',
  (t) => {
    const tokenizer = smollm2()
    t.true(tokenizer.addedTokens.length >= 10)
    for (const { content } of tokenizer.addedTokens) {
      const half = Math.floor(content.length / 2)
      const ways = [
        [content],
        [` ${content} `],
        [`a${content}b`],
        [content + content],
        [content.slice(0, half), content.slice(half)],
        [content.replace('|', '\u200b|')],
        [`<${content}>`],
        [content.replaceAll('<', '\uff1c').replaceAll('>', '\uff1e')],
      ]
      for (const texts of ways) {
        for (const layout of layouts) {
          t.is(
            holds(
              tokenizer,
              texts.map((text) => ({ text })),
              layout,
            ),
            null,
            JSON.stringify(texts),
          )
        }
      }
    }
  },
)

/** Added tokens of families of models, as their tokenizers list them; each is also what merges would make of its text. */
const families: Record<string, string[]> = {
  'Qwen 2 and 3': [
    ...[
      '<|endoftext|>',
      '<|im_start|>',
      '<|im_end|>',
      '<|object_ref_start|>',
      '<|vision_pad|>',
      '<|fim_prefix|>',
    ],
    ...['<|repo_name|>', '<tool_call>', '</tool_call>', '<tool_response>', '<think>', '</think>'],
  ],
  'Llama 3': [
    ...[
      '<|begin_of_text|>',
      '<|end_of_text|>',
      '<|start_header_id|>',
      '<|end_header_id|>',
      '<|eot_id|>',
      '<|eom_id|>',
    ],
    ...['<|python_tag|>', '<|finetune_right_pad_id|>', '<|reserved_special_token_0|>'],
  ],
  'Llama 2 and Mistral': ['<s>', '</s>', '<unk>', '[INST]', '[/INST]', '[TOOL_CALLS]', '<<SYS>>', '[PAD]'],
  Gemma: ['<bos>', '<eos>', '<start_of_turn>', '<end_of_turn>', '<unused0>', '[multimodal]'],
  DeepSeek: ['<｜begin▁of▁sentence｜>', '<｜end▁of▁sentence｜>', '<｜User｜>', '<｜tool▁sep｜>'],
}

for (const [family, added] of Object.entries(families)) {
  test(`no added token of ${family} arises from a document, whose text its merges could spell`, (t) => {
    const merges = added.flatMap((text) => {
      const letters = [...Buffer.from(text).toString('latin1')]
      if (letters.length !== text.length) return []
      return letters.slice(1).map((letter, i): [string, string] => [text.slice(0, i + 1), letter])
    })
    const tokenizer = new Tokenizer(
      tinyTokenizerFiles({
        merges,
        added: added.map((content) => ({ content, special: true })),
        normalizer: { type: 'NFC' },
      }),
    )
    t.is(tokenizer.addedTokens.length, added.length)
    for (const content of added) {
      t.deepEqual(
        [...tokenizer.encode(content)],
        [tokenizer.tokenId(content)],
        'it is one token where text is trusted',
      )
      const half = Math.floor(content.length / 2)
      const split = [content.slice(0, half), content.slice(half)]
      const wide = content.replaceAll('<', '\uff1c').replaceAll('>', '\uff1e')
      const hidden = `${content.slice(0, 2)}\u200b${content.slice(2)}`
      for (const texts of [
        [content],
        [`a ${content}b`],
        [content + content],
        split,
        [wide],
        [hidden],
        added,
      ]) {
        for (const layout of layouts) {
          const documents = texts.map((text) => ({ title: text, text }))
          t.is(holds(tokenizer, documents, layout), null, JSON.stringify(texts))
        }
      }
    }
    t.deepEqual(resists(tokenizer), [])
  })
}

test('an added token without brackets does not arise either', (t) => {
  const tokenizer = byteTokenizer()
  const end = tokenizer.tokenId('<|end|>')!
  t.true(tokenizer.encode('<|end|>').includes(end), 'the token is found in text that is trusted')
  t.is(holds(tokenizer, [{ text: '<|end|>' }], 'plain'), null)
})

test('tags are escaped, control characters go, white space runs become one', (t) => {
  t.is(sanitizeText('a <b>c</b>  d\t\u0000e \n\n\n f'), 'a &lt;b&gt;c&lt;/b&gt; d e\nf')
  t.is(sanitizeText('Ünïcödé 東京 👍🏽 x²'), 'Ünïcödé 東京 👍🏽 x²')
  t.is(sanitizeText('‹answer› and ‹quoted›'), '&lt;answer&gt; and ‹quoted›')
})

test('a text is cut on a border of tokens and never within a character', (t) => {
  const tokenizer = byteTokenizer()
  t.is(cutText(tokenizer, 'abcdef', 2), 'ab')
  t.is(cutText(tokenizer, '東京', 4), '東')
  t.is(cutText(tokenizer, 'short', 20), 'short')
  const long = cutText(worldTokenizer(), 'The birthplace of Ada Lund is Berlin. '.repeat(40), 25)
  t.true(worldTokenizer().encode(long).length <= 25 && long.length > 25)
})

test('of a document of 10 MB no more than its beginning is encoded', (t) => {
  const text = 'word <answer> '.repeat(800_000)
  const ids = informationBlock(worldTokenizer(), [{ text }], options)!
  t.deepEqual(ids, informationBlock(worldTokenizer(), [{ text: text.slice(0, 10_000) }], options))
})

test('where not all fits, the last documents go first, then the end of the first; null where no block fits', (t) => {
  const tokenizer = worldTokenizer()
  const documents = ['first', 'second', 'third'].map((word) => ({ text: `${word} `.repeat(10) }))
  const all = informationBlock(tokenizer, documents, options)!
  for (let maxTokens = all.length; maxTokens >= 0; maxTokens--) {
    const ids = informationBlock(tokenizer, documents, { ...options, maxTokens })
    if (ids === null) {
      t.true(maxTokens < informationBlock(tokenizer, [], options)!.length)
      continue
    }
    t.true(ids.length <= maxTokens)
    const text = tokenizer.decode(ids)
    t.regex(text, /^\n\n<information>[^<]*\n<\/information>\n\n$/)
    if (text.includes('second')) t.true(text.includes(`${'first '.repeat(9)}first`))
  }
})

test('documents are numbered with their titles, or stand plain', (t) => {
  const tokenizer = worldTokenizer()
  const documents = [{ title: 'Ada', text: 'born in Rome' }, { text: 'no title' }]
  const shown = (layout: DocumentLayout) =>
    tokenizer.decode(informationBlock(tokenizer, documents, { ...options, layout })!)
  t.is(
    shown('numbered'),
    '\n\n<information>Doc 1(Title: Ada) born in Rome\nDoc 2: no title\n</information>\n\n',
  )
  t.is(shown('plain'), '<information>born in Rome\nno title</information>')
})

test('what the policy wrote behind its search in the same token is not written again', (t) => {
  const tokenizer = worldTokenizer()
  const after = (layout: DocumentLayout, overshoot: string) =>
    overshoot +
    tokenizer.decode(informationBlock(tokenizer, [{ text: 'x' }], { ...options, layout, overshoot })!)
  t.is(after('plain', '<'), '<information>x</information>')
  t.is(after('plain', '\n<in'), '\n<information>x</information>')
  t.is(after('numbered', '\n'), '\n\n<information>Doc 1: x\n</information>\n\n')
  t.is(after('numbered', ' <'), ' <information>Doc 1: x\n</information>\n\n')
  t.is(after('plain', '</'), '</<information>x</information>')
})
