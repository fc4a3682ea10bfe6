import test from 'ava'
import type { SearchRecord } from '../../lib/rollout/search.ts'
import type { Trajectory } from '../../lib/rollout/trajectory.ts'
import { describeSearches } from '../../lib/training/search-record.ts'

const nothing: SearchRecord = {
  turn: 0,
  query: 'q',
  outcome: 'self',
  provider: null,
  failure: null,
  cached: false,
  documents: 0,
  tokens: 0,
  latency: 0,
  attempts: 0,
}

const found = (rest: Partial<SearchRecord>): SearchRecord => ({ ...nothing, outcome: 'documents', ...rest })

test("a step's searches are counted by who answered, with failures, cache hits, tokens and latency", (t) => {
  const failed = found({
    outcome: 'failure',
    provider: 'web',
    failure: { code: 'ERR_TIMEOUT', message: 'late' },
    latency: 90,
  })
  const blank: SearchRecord = { ...nothing, query: '', outcome: 'blank', tokens: 3 }
  const searches: SearchRecord[][] = [
    [found({ provider: 'web', documents: 3, tokens: 50, latency: 20 }), nothing],
    [found({ provider: 'local', cached: true, documents: 1, tokens: 7, latency: 10 }), failed],
    [blank, found({ provider: 'web', tokens: 4, latency: 40 })],
    [],
  ]
  const trajectories = searches.map(
    (own, index) => ({ searches: own, invalidActions: index % 2 }) as unknown as Trajectory,
  )
  t.deepEqual(describeSearches(trajectories), {
    search: {
      asked: 5,
      self: 1,
      documents: 3,
      failures: 1,
      blank: 1,
      invalidActions: 2,
      providers: { web: 2, local: 1 },
      cacheHits: 1,
      tokens: 64,
    },
    searchLatency: { mean: 40, max: 90 },
  })
})

test('where nobody outside was asked, the latency is 0', (t) => {
  const own = [{ searches: [nothing], invalidActions: 0 } as unknown as Trajectory]
  t.deepEqual(describeSearches(own).searchLatency, { mean: 0, max: 0 })
  t.deepEqual(describeSearches(own).search.providers, {})
})
