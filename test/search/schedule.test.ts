import test from 'ava'
import { createSchedule, runShare, type ScheduledSearch } from '../../lib/search/schedule.ts'

const search: ScheduledSearch = { turn: 0, step: 1, steps: 10, entropy: 1, previousEntropy: null, seed: 1 }
const seeds = Array.from({ length: 400 }, (_, seed) => seed)

test('self and real are constant', (t) => {
  for (const turn of [0, 1, 5]) {
    t.is(createSchedule('self')({ ...search, turn }), 'self')
    t.is(createSchedule('real')({ ...search, turn }), 'real')
    t.is(createSchedule('multi-turn')({ ...search, turn }), 'real')
  }
})

test('first: K searches are real, then the policy answers', (t) => {
  for (const realSearches of [0, 1, 3]) {
    const schedule = createSchedule('first', { realSearches })
    const answers = [0, 1, 2, 3, 4].map((turn) => schedule({ ...search, turn }))
    t.deepEqual(
      answers,
      [0, 1, 2, 3, 4].map((turn) => (turn < realSearches ? 'real' : 'self')),
    )
  }
})

test('entropy: the first is real, a later one where its entropy is above that of the query before', (t) => {
  const schedule = createSchedule('entropy')
  t.is(schedule(search), 'real')
  t.is(schedule({ ...search, turn: 1, previousEntropy: 0.9 }), 'real')
  t.is(schedule({ ...search, turn: 1, previousEntropy: 1 }), 'self')
  t.is(schedule({ ...search, turn: 1, previousEntropy: 1.1 }), 'self')
})

test('curriculum: the share of real answers goes evenly from the first step’s to the last’s', (t) => {
  const schedule = createSchedule('curriculum', { realShareStart: 0.2, realShareEnd: 0.8 })
  const share = (step: number) =>
    seeds.filter((seed) => schedule({ ...search, step, steps: 11, seed }) === 'real').length / seeds.length
  for (const [step, expected] of [
    [1, 0.2],
    [6, 0.5],
    [11, 0.8],
  ] as const) {
    t.true(Math.abs(share(step) - expected) < 4 * Math.sqrt(0.25 / seeds.length), `${step}: ${share(step)}`)
  }
  t.is(schedule({ ...search, seed: 5 }), schedule({ ...search, seed: 5 }))
  const never = createSchedule('curriculum')
  t.true(seeds.every((seed) => never({ ...search, seed }) === 'self'))
})

test('a run goes from 0 to 1; a single step and no run at all are at the end', (t) => {
  t.deepEqual(
    [1, 2, 3].map((step) => runShare(step, 3)),
    [0, 0.5, 1],
  )
  t.is(runShare(1, 1), 1)
  t.is(runShare(0, 0), 1)
})
