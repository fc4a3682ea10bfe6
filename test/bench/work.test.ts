import test from 'ava'
import { limitRows, limitSeconds } from '../../bench/work.ts'

/** One second a product of the layers, ten the projection to the vocabulary, whatever the rows. */
const limit = limitRows.map(() => [1, 1, 1, 1, 10])
const learner = { kind: 'learner', sequences: 2, tokens: 2048, promptTokens: 1024 } as const

test('the limit of a learner counts each product three times, the vocabulary only for what is learnt', (t) => {
  const layersOnce = 2 * 3 * 4
  t.is(limitSeconds(learner, { layers: 3, recomputed: 0 }, limit), 3 * layersOnce + 3 * 10)
})

test('layers that are computed again count as work', (t) => {
  const kept = limitSeconds(learner, { layers: 3, recomputed: 0 }, limit)
  t.is(limitSeconds(learner, { layers: 3, recomputed: 1 / 3 }, limit), kept + 2 * 4)
})
