import { readFileSync } from 'node:fs'
import test from 'ava'
import { coverExactMatchScore, exactMatchScore, f1Score } from '../../lib/rewards/answers.ts'
import type { PythonCase } from './python-case.ts'

const cases: PythonCase[] = JSON.parse(
  readFileSync(new URL('./fixtures/python-scores.json', import.meta.url), 'utf8'),
)

test(`em, cover_em and f1 agree with Python on ${cases.length} random cases`, (t) => {
  for (const [prediction, goldens, , em, coverEm, f1] of cases) {
    const title = JSON.stringify([prediction, goldens])
    t.is(exactMatchScore(prediction, goldens), em, title)
    t.is(coverExactMatchScore(prediction, goldens), coverEm, title)
    t.is(f1Score(prediction, goldens), f1, title)
  }
})

test('exact match takes any of the golden answers', (t) => {
  t.is(exactMatchScore('the Paris.', ['Rome', 'PARIS']), 1)
  t.is(exactMatchScore('Paris, France', ['Rome', 'Paris']), 0)
})

test('cover match asks for the golden answer inside the prediction, not the other way', (t) => {
  t.is(coverExactMatchScore('in Paris, France', ['Paris']), 1)
  t.is(coverExactMatchScore('Paris', ['Paris, France']), 0)
})

test('f1 counts shared words as bags and takes the best golden answer', (t) => {
  t.is(f1Score('New York City', ['York']), 0.5)
  t.is(f1Score('x x y', ['x']), 0.5)
  t.is(f1Score('x', ['z', 'x y', 'x y z']), 2 / 3)
})

test('f1 is 0 when exactly one side is yes, no or noanswer', (t) => {
  t.is(f1Score('yes', ['yes it is']), 0)
  t.is(f1Score('yes it is', ['yes']), 0)
  t.is(f1Score('no', ['noanswer']), 0)
  t.is(f1Score('Yes!', ['yes']), 1)
})

test('an empty prediction follows the published metrics', (t) => {
  t.is(exactMatchScore('', ['x']), 0)
  t.is(exactMatchScore('', ['The The']), 1)
  t.is(coverExactMatchScore('x', ['!!!']), 1)
  t.is(f1Score('', ['!!!']), 0)
})

test('without golden answers every score is 0', (t) => {
  for (const score of [exactMatchScore, coverExactMatchScore, f1Score]) t.is(score('x', []), 0)
})
