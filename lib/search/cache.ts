import { createHash } from 'node:crypto'
import { SsrlError } from '../errors.ts'
import {
  asFailure,
  type SearchContext,
  type SearchFailure,
  type SearchProvider,
  type SearchResult,
} from './provider.ts'
import { type Database, openDatabase } from './sqlite.ts'

export interface CacheOptions {
  /** SQLite file; made where it is missing, unless replayed. */
  file: string
  /**
   * `record`: what is known is answered from the file, the rest is asked and remembered. `replay`: the file alone
   * answers, and a query that it lacks is a failure. Default `record`.
   */
  mode?: 'record' | 'replay'
}

/** Raised when the layout changes. */
const version = 1

/**
 * Remembers answers on disk. The first answer to a query is the one that every later asking gets, also within a run, so
 * that a replay, which needs no network, gives each search what the recorded run gave it. Failures are remembered for the
 * single asking that they befell: a replay repeats them there, a second recording asks again.
 *
 * A cached policy that answers by `self` is passed through.
 */
export async function cacheProvider(inner: SearchProvider, options: CacheOptions): Promise<SearchProvider> {
  const { file, mode = 'record' } = options
  const store = await CacheStore.open(file, mode)
  const known = (query: string, index: number, context: SearchContext): SearchResult | undefined => {
    const key = answerKey(inner, query, index, context)
    const failure = mode === 'replay' ? store.failure(askingKey(key, index, context)) : undefined
    return failure ?? store.answer(key)
  }
  const search = async (queries: readonly string[], context: SearchContext): Promise<SearchResult[]> => {
    const results = queries.map((query, index) => known(query, index, context))
    const open = results.flatMap((result, index) => (result === undefined ? [index] : []))
    if (mode === 'replay') return results.map((result, index) => result ?? notRecorded(queries[index]!, file))
    const keys = open.map((index) => answerKey(inner, queries[index]!, index, context))
    const askings = open.map((index, place) => askingKey(keys[place]!, index, context))
    try {
      const found = await askInner(inner, queries, open, context)
      // An answer that comes when its time is over is none.
      context.signal.throwIfAborted()
      for (const [place, index] of open.entries()) {
        results[index] = store.keep(found[place]!, keys[place]!, askings[place]!)
      }
    } catch (error) {
      for (const asking of askings) store.keepFailure(asking, asFailure(error))
      throw error
    }
    return results as SearchResult[]
  }
  return {
    name: inner.name,
    ...(inner.batchSize === undefined ? {} : { batchSize: inner.batchSize }),
    ...(inner.cacheKey ? { cacheKey: inner.cacheKey.bind(inner) } : {}),
    search,
    close: async () => {
      store.close()
      await inner.close?.()
    },
  }
}

/** Asks for what is open, the same question once. */
async function askInner(
  inner: SearchProvider,
  queries: readonly string[],
  open: readonly number[],
  context: SearchContext,
): Promise<SearchResult[]> {
  if (open.length === 0) return []
  const first = new Map<string, number>()
  for (const index of open) {
    const key = answerKey(inner, queries[index]!, index, context)
    if (!first.has(key)) first.set(key, index)
  }
  const asked = [...first.values()]
  const origins = asked.map((index) => context.origins[index]!)
  const results = await inner.search(
    asked.map((index) => queries[index]!),
    { ...context, origins },
  )
  if (results.length !== asked.length) {
    throw new SsrlError(
      'ERR_SEARCH',
      `Expected ${asked.length} results of ${inner.name} but received ${results.length}`,
    )
  }
  const byKey = new Map([...first.keys()].map((key, place) => [key, results[place]!]))
  return open.map((index) => byKey.get(answerKey(inner, queries[index]!, index, context))!)
}

function answerKey(inner: SearchProvider, query: string, index: number, context: SearchContext): string {
  const extra = inner.cacheKey?.(context.origins[index]!, context) ?? ''
  return hash([inner.name, context.topK, extra, query])
}

function askingKey(key: string, index: number, context: SearchContext): string {
  const { questionId, seed, turn } = context.origins[index]!
  return hash([key, context.step, questionId, seed, turn])
}

const hash = (parts: unknown[]) => createHash('sha256').update(JSON.stringify(parts)).digest('hex')

function notRecorded(query: string, file: string): SearchResult {
  const message = `The query ${JSON.stringify(query.slice(0, 120))} was not recorded in ${file}`
  return { failure: { code: 'ERR_SEARCH', message } }
}

class CacheStore {
  readonly #database: Database.Database
  readonly #readAnswer: Database.Statement
  readonly #readFailure: Database.Statement
  readonly #writeAnswer: Database.Statement | null
  readonly #writeFailure: Database.Statement | null
  readonly #dropFailure: Database.Statement | null

  private constructor(database: Database.Database, isReplay: boolean) {
    this.#database = database
    this.#readAnswer = database.prepare('SELECT value FROM answers WHERE key = ?').pluck()
    this.#readFailure = database.prepare('SELECT value FROM failures WHERE key = ?').pluck()
    this.#writeAnswer = isReplay ? null : database.prepare('INSERT OR IGNORE INTO answers VALUES (?, ?)')
    this.#writeFailure = isReplay ? null : database.prepare('INSERT OR REPLACE INTO failures VALUES (?, ?)')
    this.#dropFailure = isReplay ? null : database.prepare('DELETE FROM failures WHERE key = ?')
  }

  static async open(file: string, mode: 'record' | 'replay'): Promise<CacheStore> {
    const isReplay = mode === 'replay'
    const database = await openDatabase(file, { readonly: isReplay, fileMustExist: isReplay })
    try {
      const found = database.pragma('user_version', { simple: true }) as number
      const isNew = found === 0 && !isReplay
      if (!isNew && found !== version) {
        throw new SsrlError(
          'ERR_SEARCH',
          `Expected a search cache of version ${version} but ${file} has ${found}`,
        )
      }
      if (!isReplay) prepareFile(database)
      return new CacheStore(database, isReplay)
    } catch (cause) {
      database.close()
      if (cause instanceof SsrlError) throw cause
      throw new SsrlError('ERR_SEARCH', `${file} is no search cache: ${(cause as Error).message}`, { cause })
    }
  }

  answer(key: string): SearchResult | undefined {
    const value = this.#readAnswer.get(key) as string | undefined
    return value === undefined ? undefined : { ...JSON.parse(value), cached: true }
  }

  failure(key: string): SearchResult | undefined {
    const value = this.#readFailure.get(key) as string | undefined
    return value === undefined ? undefined : { failure: JSON.parse(value), cached: true }
  }

  /** What the asking gets: the answer that was there first, if another call brought one meanwhile. */
  keep(result: SearchResult, key: string, asking: string): SearchResult {
    if ('self' in result) return result
    if ('failure' in result) {
      this.keepFailure(asking, result.failure)
      return result
    }
    // Of an earlier try.
    this.#dropFailure!.run(asking)
    const { documents } = result
    this.#writeAnswer!.run(key, JSON.stringify({ documents }))
    const { documents: kept } = this.answer(key) as { documents: typeof documents }
    return { documents: kept }
  }

  keepFailure(asking: string, failure: SearchFailure): void {
    this.#writeFailure!.run(asking, JSON.stringify(failure))
  }

  close(): void {
    this.#database.close()
  }
}

function prepareFile(database: Database.Database): void {
  // Readers may look on while a run writes; a run that is killed loses nothing that it has read back.
  database.pragma('journal_mode = WAL')
  database.pragma('synchronous = NORMAL')
  database.exec(
    `CREATE TABLE IF NOT EXISTS answers(key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
     CREATE TABLE IF NOT EXISTS failures(key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID`,
  )
  database.pragma(`user_version = ${version}`)
}
