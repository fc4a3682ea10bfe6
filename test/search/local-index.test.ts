import { existsSync } from 'node:fs'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import { IndexThread } from '../../lib/search/index-thread.ts'
import { localProvider } from '../../lib/search/local.ts'
import { buildIndex, LocalIndex, type Passage, queryWords, readCorpus } from '../../lib/search/local-index.ts'
import { openDatabase } from '../../lib/search/sqlite.ts'
import { searchContext, textsOf } from '../helpers/search.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'
import { testWithSqlite } from '../helpers/sqlite.ts'

let folder: string
test.before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'ssrl-index-'))
})
test.after.always(() => rm(folder, { recursive: true, force: true }))

const passages: Passage[] = [
  { id: '1', title: 'Ada Lund', text: 'Ada Lund was born in Rome.' },
  { id: '2', title: 'Rome', text: 'Rome is the capital of Italy. It is old.' },
  { id: '3', text: 'Café au lait is a drink; "quoted" words AND NOT OR NEAR(x) stand here.' },
]

async function index(name: string, list: readonly Passage[] = passages): Promise<LocalIndex> {
  const directory = path.join(folder, name)
  await buildIndex(list, directory)
  return LocalIndex.open(directory)
}

testWithSqlite('passages are ranked by BM25, the best first, titles counted too', async (t) => {
  const local = await index('ranked')
  t.is(local.size, 3)
  const [first, second] = local.search('Where was Ada Lund born?', 3)
  t.like(first, { id: '1', title: 'Ada Lund', text: 'Ada Lund was born in Rome.' })
  t.is(second, undefined)
  const both = local.search('the capital Rome', 3)
  t.deepEqual(
    both.map(({ id }) => id),
    ['2', '1'],
  )
  t.true(both[0]!.score! > both[1]!.score! && both[1]!.score! > 0)
  t.is(local.search('the capital Rome', 1).length, 1)
  local.close()
})

testWithSqlite('scores are BM25 with k1 1.2 and b 0.75', async (t) => {
  const words = [['a1', 'b1', 'b1'], ['b1', 'c1'], ['c1', 'c1', 'c1', 'd1'], ['e1'], ['f1'], ['g1']]
  const local = await index(
    'scores',
    words.map((text, id) => ({ id: String(id), text: text.join(' ') })),
  )
  const mean = words.flat().length / words.length
  const score = (id: number, word: string) => {
    const containing = words.filter((list) => list.includes(word)).length
    const inverse = Math.log((words.length - containing + 0.5) / (containing + 0.5))
    const count = words[id]!.filter((other) => other === word).length
    return (inverse * count * 2.2) / (count + 1.2 * (0.25 + (0.75 * words[id]!.length) / mean))
  }
  for (const word of ['b1', 'c1']) {
    for (const { id, score: found } of local.search(word, 5)) {
      t.true(Math.abs(found! - score(Number(id), word)) < 1e-9)
    }
    t.is(local.search(word, 5).length, 2)
  }
  local.close()
})

testWithSqlite('a query holds no syntax, whatever it is', async (t) => {
  const local = await index('syntax')
  const queries = [
    '"',
    '""',
    "'",
    '(',
    ')',
    '*',
    '^',
    ':',
    '-',
    '+',
    'a:b',
    'title:Rome',
    'NEAR(a b)',
    'a AND',
    'OR',
    'NOT',
    '\\',
    '{x y}',
    '\u0000',
    '💥',
    '%',
    ';DROP TABLE passages',
    '" OR "x',
    '\ud800',
    '',
    ' ',
    'the of',
    'x'.repeat(100_000),
    'word '.repeat(5000),
  ]
  for (const query of queries) t.notThrows(() => local.search(query, 3), query.slice(0, 30))
  t.is(local.search('CAFE', 3)[0]?.id, '3')
  t.is(local.search('"quoted"', 3)[0]?.id, '3')
  t.deepEqual(
    local.search('NEAR', 3).map(({ id }) => id),
    ['3'],
  )
  t.deepEqual(local.search('zebra', 3), [])
  local.close()
})

testWithSqlite('in a large index common words count where rarer ones stand, and answer alone', async (t) => {
  // The last passages are like the others in all but what they are searched by.
  const size = 100_000
  function* many(): Generator<Passage> {
    for (let id = 0; id < size - 4; id++) {
      yield { id: String(id), text: id % 10 === 0 ? `france w${id} v${id}` : `u${id} w${id} v${id}` }
    }
    const last = ['capital u w', 'capital france w', 'u v w', 'capital capital w']
    for (const [place, text] of last.entries()) yield { id: `last${place}`, text }
  }
  const directory = path.join(folder, 'common')
  await buildIndex(many(), directory)
  const local = await LocalIndex.open(directory)
  const found = local.search('capital france', 3)
  t.deepEqual(
    found.map(({ id }) => id),
    ['last3', 'last1', 'last0'],
  )
  const inverse = (containing: number) => Math.log((size - containing + 0.5) / (containing + 0.5))
  // Every passage has three words, the mean: a word that stands there once counts by its rarity alone.
  t.true(Math.abs(found[1]!.score! - inverse(3) - inverse(size / 10 + 1)) < 1e-6)
  t.true(Math.abs(found[2]!.score! - inverse(3)) < 1e-6)
  t.true(local.search('france', 3).length === 3)
  t.true(local.search('france nowhere', 3).length === 3)
  local.close()
})

testWithSqlite('a thread of its own answers, so that the event loop goes on meanwhile', async (t) => {
  const directory = path.join(folder, 'thread')
  const text = Array.from({ length: 500 }, (_, word) => `word${word}`).join(' ')
  await buildIndex(
    Array.from({ length: 600 }, (_, id) => ({ id: String(id), text })),
    directory,
  )
  const index = await IndexThread.open(directory)
  t.is(index.size, 600)
  const query = Array.from({ length: 60 }, (_, word) => `word${word}`).join(' ')
  let turns = 0
  const timer = setInterval(() => {
    turns += 1
  }, 1)
  const found = await Promise.all(Array.from({ length: 8 }, () => index.search(query, 2)))
  clearInterval(timer)
  t.true(found.every((documents) => documents.length === 2))
  t.true(turns >= 4, `${turns} turns of the event loop`)
  const left = index.search(query, 1)
  await Promise.all([t.throwsAsync(left, { code: 'ERR_SEARCH', message: /was closed/ }), index.close()])
  await t.throwsAsync(index.search('word1', 1), { code: 'ERR_SEARCH', message: /was closed/ })
  await t.throwsAsync(IndexThread.open(path.join(folder, 'nowhere')), {
    code: 'ERR_SEARCH',
    message: /ssrl index --corpus/,
  })
})

test('stop words go, unless nothing else is there; words are lower case, distinct and without accents', (t) => {
  t.deepEqual(queryWords('Who is the Author of Café the author?'), ['author', 'cafe'])
  t.deepEqual(queryWords('The Who'), ['the', 'who'])
  t.deepEqual(queryWords('東京 2024!'), ['東京', '2024'])
  t.deepEqual(queryWords('?!'), [])
})

testWithSqlite('an index appears complete or not at all, and replaces the one before', async (t) => {
  const directory = path.join(folder, 'replaced')
  await buildIndex(passages, directory)
  async function* broken() {
    yield passages[0]!
    throw new Error('the source broke')
  }
  await t.throwsAsync(buildIndex(broken(), directory), { message: 'the source broke' })
  t.deepEqual(await readdir(directory), ['index.sqlite'])
  t.is((await LocalIndex.open(directory)).size, 3)
  await buildIndex(passages.slice(0, 1), directory)
  t.is((await LocalIndex.open(directory)).size, 1)
  await t.throwsAsync(buildIndex([], directory), { code: 'ERR_DATASET', message: /at least one passage/ })
  const signal = AbortSignal.abort(new Error('enough'))
  await t.throwsAsync(buildIndex(passages, directory, { signal }), { message: 'enough' })
  t.deepEqual(await readdir(directory), ['index.sqlite'])
})

testWithSqlite('no index, another file and another version are told', async (t) => {
  const at = (name: string) => path.join(folder, name)
  await t.throwsAsync(LocalIndex.open(at('nowhere')), { code: 'ERR_SEARCH', message: /ssrl index --corpus/ })
  await buildIndex(passages, at('old'))
  const database = await openDatabase(path.join(at('old'), 'index.sqlite'))
  database.pragma('user_version = 99')
  database.close()
  await t.throwsAsync(LocalIndex.open(at('old')), {
    code: 'ERR_SEARCH',
    message: /version 2 .* found version 99/,
  })
  await buildIndex(passages, at('text'))
  await writeFile(
    path.join(at('text'), 'index.sqlite'),
    'not a database, but long enough to be looked at'.repeat(50),
  )
  await t.throwsAsync(LocalIndex.open(at('text')), { code: 'ERR_SEARCH', message: /is no index/ })
})

let corpora = 0

async function corpus(lines: string[]): Promise<Passage[]> {
  const file = path.join(folder, `corpus-${corpora++}.jsonl`)
  await writeFile(file, lines.join('\n'))
  const found: Passage[] = []
  for await (const passage of readCorpus(file)) found.push(passage)
  return found
}

test('both layouts of a corpus are read', async (t) => {
  const lines = [
    '{"id":1,"contents":"\\"Ada\\"\\nborn"}',
    '',
    '{"id":"x","title":"T","contents":"c"}',
    '{"id":2,"contents":"c"}',
  ]
  t.deepEqual(await corpus(lines), [
    { id: '1', title: 'Ada', text: 'born' },
    { id: 'x', title: 'T', text: 'c' },
    { id: '2', text: 'c' },
  ])
})

test('a broken line is told with its number', async (t) => {
  const good = '{"id":1,"contents":"c"}'
  for (const line of ['{"id":1', '{"id":1}', '{"contents":"c"}', '[]', '"text"', '{"id":1,"contents":7}']) {
    await t.throwsAsync(corpus([good, line, good]), { code: 'ERR_DATASET', message: /corpus-\d+\.jsonl:2/ })
  }
})

testWithSqlite('the provider answers every query of a batch', async (t) => {
  const directory = path.join(folder, 'provider')
  await buildIndex(passages, directory)
  const provider = await localProvider(directory)
  const results = await provider.search(['Ada', 'zebra', 'Italy'], searchContext(3, { topK: 1 }))
  t.deepEqual(results.map(textsOf), [
    ['Ada Lund was born in Rome.'],
    [],
    ['Rome is the capital of Italy. It is old.'],
  ])
  await provider.close?.()
})

const testWithBoth = existsSync(sharedPath()) ? testWithSqlite : testWithShared

testWithBoth('Wikipedia passages are found by what stands in them', async (t) => {
  const directory = path.join(folder, 'wiki')
  await buildIndex(readCorpus(sharedPath('data', 'wiki-passages.jsonl')), directory)
  const local = await LocalIndex.open(directory)
  t.is(local.size, 9574)
  const found = local.search('which academies use the .mil domain name', 3)
  t.true(found.some(({ title }) => title === '.mil'))
  local.close()
})
