import { readFileSync } from 'node:fs'
import test from 'ava'
import fc from 'fast-check'
import { normalizeAnswer } from '../../lib/rewards/normalize.ts'
import { isBlank, splitWords, strip } from '../../lib/rewards/python-text.ts'
import type { PythonCase } from './python-case.ts'

const cases: PythonCase[] = JSON.parse(
  readFileSync(new URL('./fixtures/python-scores.json', import.meta.url), 'utf8'),
)
const anyText = fc.string({ unit: 'binary', maxLength: 40 })

const examples: [string, string, string][] = [
  ['lower case', 'New YORK', 'new york'],
  ['articles go', 'The cat and a dog, an owl', 'cat and dog owl'],
  ['an article inside a word stays', 'theatre banana', 'theatre banana'],
  ['word boundaries are Unicode', 'aé théorème the', 'aé théorème'],
  ['a combining mark ends a word', 'a\u0301', '\u0301'],
  ['an underscore is removed before articles are looked for', 'the_end', 'theend'],
  ['a superscript digit is part of a word', 'a²', 'a²'],
  ['every ASCII punctuation sign goes', '!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~x', 'x'],
  ['other punctuation stays', '“x” – y…', '“x” – y…'],
  ['hyphens join', 'Baix-Cinca', 'baixcinca'],
  ['white space of Python includes \\x1c-\\x1f and \\x85', 'x\x1c\x1d\x1e\x1fy\x85z', 'x y z'],
  ['U+FEFF is not white space', '\ufeffx \ufeff', '\ufeffx \ufeff'],
  ['white space is collapsed and stripped', '  x \n\t y\u3000', 'x y'],
  ['a dotted capital I becomes two characters', 'İ', 'i̇'],
  ['a final sigma is one', 'ΟΔΟΣ ΟΔΟΣ', 'οδος οδος'],
  ['articles alone leave nothing', 'The the A', ''],
  ['punctuation alone leaves nothing', '!!!', ''],
]
for (const [title, text, expected] of examples) {
  test(title, (t) => t.is(normalizeAnswer(text), expected))
}

test(`agrees with Python on ${cases.length} random strings`, (t) => {
  for (const [prediction, , normalized] of cases) t.is(normalizeAnswer(prediction), normalized)
})

test('the result has no ASCII punctuation and no white space but single spaces inside', (t) => {
  fc.assert(
    fc.property(anyText, (text) => {
      const result = normalizeAnswer(text)
      return !/[!-/:-@[-`{-~]/.test(result) && splitWords(result).join(' ') === result
    }),
  )
  t.pass()
})

test('neither case, punctuation nor surrounding articles change the result', (t) => {
  const word = fc.stringMatching(/^[b-z]{2,8}$/)
  fc.assert(
    fc.property(fc.array(word, { minLength: 1, maxLength: 4 }), (words) => {
      const plain = normalizeAnswer(words.join(' '))
      return normalizeAnswer(`The ${words.join(' ').toUpperCase()}!`) === plain
    }),
  )
  t.pass()
})

test('strip and splitWords take away the same characters', (t) => {
  fc.assert(
    fc.property(anyText, (text) => {
      const words = splitWords(text)
      return words.join('') === splitWords(strip(text)).join('') && isBlank(text) === (words.length === 0)
    }),
  )
  t.pass()
})
