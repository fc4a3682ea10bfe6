import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import { cacheProvider } from '../../lib/search/cache.ts'
import { SearchDesk } from '../../lib/search/desk.ts'
import {
  RetryableSearchError,
  type SearchProvider,
  type SearchResult,
  selfProvider,
} from '../../lib/search/provider.ts'
import { failureOf, searchContext, someOrigin, textsOf } from '../helpers/search.ts'
import { testWithSqlite } from '../helpers/sqlite.ts'

let folder: string
test.before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'ssrl-cache-'))
})
test.after.always(() => rm(folder, { recursive: true, force: true }))

const fileOf = (name: string) => path.join(folder, `${name}.sqlite`)

/** Another answer each time: a web that changes. */
function drifting() {
  const asked: string[] = []
  const provider: SearchProvider = {
    name: 'drifting',
    search: async (queries) =>
      queries.map((query) => ({ documents: [{ text: `${query} ${asked.push(query)}` }] })),
  }
  return { provider, asked }
}

const offline: SearchProvider = {
  name: 'drifting',
  search: async () => {
    throw new Error('the network was used')
  },
}

testWithSqlite('a replay gives each search what the recording gave, without the provider', async (t) => {
  const file = fileOf('replay')
  const { provider, asked } = drifting()
  const recording = await cacheProvider(provider, { file })
  const first = await recording.search(['a', 'b', 'a'], searchContext(3))
  const second = await recording.search(['b', 'c'], searchContext(2))
  await recording.close?.()
  t.deepEqual(asked, ['a', 'b', 'c'])
  t.deepEqual(first.map(textsOf), [['a 1'], ['b 2'], ['a 1']])
  t.deepEqual(second.map(textsOf), [['b 2'], ['c 3']])
  t.deepEqual(
    second.map((result) => 'cached' in result && result.cached === true),
    [true, false],
  )
  const replay = await cacheProvider(offline, { file, mode: 'replay' })
  t.deepEqual((await replay.search(['a', 'b', 'a'], searchContext(3))).map(textsOf), first.map(textsOf))
  t.deepEqual((await replay.search(['b', 'c'], searchContext(2))).map(textsOf), second.map(textsOf))
  await replay.close?.()
})

testWithSqlite('a query that was not recorded is a failure of the replay', async (t) => {
  const file = fileOf('missing')
  await (await cacheProvider(drifting().provider, { file })).close?.()
  const replay = await cacheProvider(offline, { file, mode: 'replay' })
  const [result] = await replay.search(['new'], searchContext(1))
  t.regex(failureOf(result)!.message, /"new" was not recorded/)
})

testWithSqlite('calls that overlap agree on the answer that was first', async (t) => {
  const waiting: (() => void)[] = []
  let count = 0
  const slow: SearchProvider = {
    name: 'slow',
    search: async (queries) => {
      const mine = ++count
      await new Promise<void>((resolve) => waiting.push(resolve))
      return queries.map(() => ({ documents: [{ text: `answer ${mine}` }] }))
    },
  }
  const cache = await cacheProvider(slow, { file: fileOf('overlap') })
  const both = [cache.search(['q'], searchContext(1)), cache.search(['q'], searchContext(1))]
  waiting[1]!()
  t.deepEqual(textsOf((await both[1]!)[0]), ['answer 2'])
  waiting[0]!()
  t.deepEqual(textsOf((await both[0]!)[0]), ['answer 2'])
})

testWithSqlite(
  'a failure is replayed where it happened and nowhere else; recording again asks again',
  async (t) => {
    const file = fileOf('failures')
    let isDown = true
    const flaky: SearchProvider = {
      name: 'flaky',
      search: async (queries): Promise<SearchResult[]> => {
        if (isDown) throw new RetryableSearchError('ERR_NETWORK', 'down')
        return queries.map((text) => ({ documents: [{ text }] }))
      },
    }
    const at = (questionId: string) => ({ ...someOrigin, questionId })
    const run = async (mode: 'record' | 'replay', between = () => {}) => {
      const desk = new SearchDesk(await cacheProvider(flaky, { file, mode }), { attempts: 2, backoff: 1 })
      const context = searchContext(1)
      const first = await desk.ask('q', at('one'), context)
      between()
      const second = await desk.ask('q', at('two'), context)
      await desk.provider.close?.()
      return [failureOf(first)?.code ?? null, failureOf(second)?.code ?? null]
    }
    const recorded = await run('record', () => {
      isDown = false
    })
    t.deepEqual(recorded, ['ERR_NETWORK', null])
    t.deepEqual(await run('replay'), recorded)
    t.deepEqual(await run('record'), [null, null])
  },
)

testWithSqlite('a try that failed before another one brought the answer leaves no trace', async (t) => {
  const file = fileOf('retried')
  let calls = 0
  const once: SearchProvider = {
    name: 'once',
    search: async (queries) => {
      if (++calls === 1) throw new RetryableSearchError('ERR_SEARCH', 'busy')
      return queries.map((text) => ({ documents: [{ text }] }))
    },
  }
  for (const mode of ['record', 'replay'] as const) {
    const desk = new SearchDesk(await cacheProvider(once, { file, mode }), { backoff: 1 })
    t.deepEqual(textsOf((await desk.ask('q', someOrigin, searchContext(1))).result), ['q'])
    await desk.provider.close?.()
  }
  t.is(calls, 2)
})

testWithSqlite('an answer that came too late is a failure in the replay as well', async (t) => {
  const file = fileOf('late')
  let release = () => {}
  const late: SearchProvider = {
    name: 'late',
    search: async (queries) => {
      await new Promise<void>((resolve) => {
        release = resolve
      })
      return queries.map((text) => ({ documents: [{ text }] }))
    },
  }
  const cache = await cacheProvider(late, { file })
  const desk = new SearchDesk(cache, { attempts: 1, timeout: 10 })
  t.is(failureOf(await desk.ask('q', someOrigin, searchContext(1)))?.code, 'ERR_TIMEOUT')
  release()
  await new Promise((resolve) => setImmediate(resolve))
  await cache.close?.()
  const replay = new SearchDesk(await cacheProvider(late, { file, mode: 'replay' }))
  t.is(failureOf(await replay.ask('q', someOrigin, searchContext(1)))?.code, 'ERR_TIMEOUT')
})

testWithSqlite('what an answer depends on beside the query is part of its key', async (t) => {
  const { provider, asked } = drifting()
  const seeded: SearchProvider = {
    ...provider,
    cacheKey: (origin, { step }) => `${origin.questionId} ${step}`,
  }
  const cache = await cacheProvider(seeded, { file: fileOf('keys') })
  await cache.search(['q', 'q'], searchContext(2, { step: 1 }))
  await cache.search(['q', 'q'], searchContext(2, { step: 2 }))
  await cache.search(['q'], searchContext(1, { step: 1 }))
  await cache.search(['q'], searchContext(1, { step: 1, topK: 1 }))
  t.is(asked.length, 5)
})

testWithSqlite('a policy that answers itself is passed through', async (t) => {
  const cache = await cacheProvider(selfProvider, { file: fileOf('self') })
  t.deepEqual(await cache.search(['q'], searchContext(1)), [{ self: true }])
})

testWithSqlite('no file to replay, another file and another version are told', async (t) => {
  await t.throwsAsync(cacheProvider(offline, { file: fileOf('none'), mode: 'replay' }), {
    code: 'ERR_SEARCH',
  })
  await writeFile(fileOf('text'), 'not a database, but long enough to be looked at'.repeat(50))
  await t.throwsAsync(cacheProvider(offline, { file: fileOf('text') }), {
    code: 'ERR_SEARCH',
    message: /no search cache/,
  })
  const { openDatabase } = await import('../../lib/search/sqlite.ts')
  const database = await openDatabase(fileOf('future'))
  database.pragma('user_version = 7')
  database.close()
  await t.throwsAsync(cacheProvider(offline, { file: fileOf('future') }), {
    message: /version 1 but .* has 7/,
  })
})
