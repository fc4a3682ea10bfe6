import test from 'ava'
import { type FormatMode, formatScore } from '../../lib/rollout/format.ts'

const BLOCKS: Record<string, string> = {
  t: '<think>hm</think>',
  s: '<search>who</search>\n<information>he</information>',
  a: '<answer>Ann</answer>',
}

/** `'t s t a'` as text, s being a search with its information. */
function trajectory(shape: string): string {
  return shape
    .split(' ')
    .map((letter) => BLOCKS[letter]!)
    .join('\n')
}

function repeated(searches: number): string {
  return `${'t s '.repeat(searches)}t a`
}

interface Row {
  name: string
  text: string
  reference: number
  strict: number
}

const full = trajectory('t s t a')
const rows: Row[] = [
  { name: 't a', text: trajectory('t a'), reference: 0.5, strict: 0.5 },
  { name: 't s t a', text: full, reference: 1, strict: 1 },
  { name: 't s a', text: trajectory('t s a'), reference: 0.25, strict: 0 },
  ...[2, 3, 4, 5, 6, 7].map((n) => ({
    name: `${n} searches with ${n + 1} thinks`,
    text: trajectory(repeated(n)),
    reference: 1,
    strict: 1,
  })),
  { name: '8 searches with 9 thinks', text: trajectory(repeated(8)), reference: 0, strict: 0 },
  { name: 't s s t a', text: trajectory('t s s t a'), reference: 2 / 3, strict: 0 },
  { name: 't s t t a', text: trajectory('t s t t a'), reference: 2 / 3, strict: 0 },
  { name: '8 thinks, no search, answer', text: trajectory('t t t t t t t t a'), reference: 0.125, strict: 0 },
  { name: 't a t a', text: trajectory('t a t a'), reference: 0.5, strict: 0 },
  { name: 'a newline inside the query', text: full.replace('who', 'who\nis'), reference: 0, strict: 0 },
  {
    name: 'a newline at the edge of the query',
    text: full.replace('who', '\nwho\n'),
    reference: 0,
    strict: 0,
  },
  { name: 'a think of several lines', text: full.replace('hm', 'h\nm'), reference: 1, strict: 1 },
  { name: 'an information of several lines', text: full.replace('he', 'h\n\ne'), reference: 1, strict: 1 },
  { name: 'an answer of several lines', text: full.replace('Ann', 'A\nnn'), reference: 1, strict: 1 },
  {
    name: '"a < b and c > d" in prose',
    text: full.replace('hm', 'a < b and c > d'),
    reference: 0,
    strict: 1,
  },
  { name: '<br> in prose', text: full.replace('he', 'h<br>e'), reference: 0, strict: 1 },
  {
    name: '<br> in a trajectory without search',
    text: '<think>a<br>b</think><answer>x</answer>',
    reference: 0,
    strict: 0.5,
  },
  { name: 'a lone < in prose', text: full.replace('hm', '1 < 2'), reference: 0, strict: 1 },
  { name: 'text before the first tag', text: `Well, ${full}`, reference: 0, strict: 0 },
  { name: 'text after the last tag', text: `${full}.`, reference: 0, strict: 0 },
  { name: 'white space around the whole', text: `\n ${full} \n`, reference: 1, strict: 1 },
  {
    name: 'an answer nested in information',
    text: '<think>t</think><search>q</search><information>i<answer>a</answer></information>',
    reference: 0,
    strict: 0,
  },
  {
    name: 'information before search',
    text: '<think>t</think><information>i</information><search>q</search><think>t</think><answer>a</answer>',
    reference: 0,
    strict: 0,
  },
  {
    name: 'free text between tags',
    text: full.replace('</think>\n', '</think> so '),
    reference: 1,
    strict: 0,
  },
  {
    name: 'a stray closer in the middle',
    text: full.replace('</think>\n', '</think></think>\n'),
    reference: 1,
    strict: 0,
  },
  {
    name: 'an unclosed think',
    text: '<think>t</think><search>q</search><information>i</information><think>t<answer>a</answer>',
    reference: 1,
    strict: 0,
  },
  { name: 'an empty text', text: '', reference: 0, strict: 0 },
  { name: 'an answer alone', text: trajectory('a'), reference: 0, strict: 0 },
  { name: 'a blank think', text: full.replace('hm', ' \n'), reference: 0, strict: 0 },
  { name: 'a blank query', text: full.replace('who', ' '), reference: 0, strict: 0 },
  { name: 'a blank information', text: full.replace('he', '\u0085'), reference: 0, strict: 0 },
  { name: 'a blank answer', text: full.replace('Ann', ''), reference: 0, strict: 0 },
  { name: 'placeholder thoughts', text: full.replace('hm', 'Your Thoughts here'), reference: 0, strict: 0 },
  { name: 'a placeholder query', text: full.replace('who', 'your query'), reference: 0, strict: 0 },
  { name: 'placeholder information', text: full.replace('he', 'YOUR INFORMATION'), reference: 0, strict: 0 },
  { name: 'a placeholder answer', text: full.replace('Ann', 'your answer'), reference: 0, strict: 0 },
  { name: 'a placeholder in another tag', text: full.replace('hm', 'your query'), reference: 1, strict: 1 },
  {
    name: 'an opener of one kind closed by another',
    text: full.replace('</think>', '</search>'),
    reference: 0,
    strict: 0,
  },
  {
    name: 'a search without information',
    text: '<think>t</think><search>q</search><think>t</think><answer>a</answer>',
    reference: 0,
    strict: 0,
  },
  {
    name: 'information without a search',
    text: '<think>t</think><information>i</information><think>t</think><answer>a</answer>',
    reference: 0,
    strict: 0,
  },
]

for (const mode of ['reference', 'strict'] as FormatMode[]) {
  for (const row of rows) {
    test(`${mode}: ${row.name} scores ${Number(row[mode].toFixed(3))}`, (t) => {
      t.is(formatScore(row.text, mode), row[mode])
    })
  }
}

test('strict is the default', (t) => {
  t.is(formatScore(trajectory('t s a')), 0)
  t.is(formatScore(full), 1)
})

test('a text without any known tag scores 0 and does not throw', (t) => {
  for (const text of ['<', '<<<think', '</', '>', '<think', '</answer>']) {
    t.is(formatScore(text), 0)
    t.is(formatScore(text, 'reference'), 0)
  }
})
