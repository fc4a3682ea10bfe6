/** A corpus on disk, ranked by BM25: SQLite's FTS5 in one file, which opens in milliseconds whatever its size. */
import { mkdir, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { z } from 'zod'
import { readJsonLines } from '../data/lines.ts'
import { SsrlError } from '../errors.ts'
import { splitContents } from './http.ts'
import type { SearchDocument } from './provider.ts'
import { type Database, openDatabase } from './sqlite.ts'
import { stopWords } from './stop-words.ts'

/** Raised when the layout changes: an older index must be built again. */
const version = 1
const fileName = 'index.sqlite'

export interface Passage {
  id: string
  title?: string
  text: string
}

export interface BuildIndexOptions {
  signal?: AbortSignal
  /** Called now and then with the number of passages so far. */
  onProgress?: (passages: number) => void
}

const corpusLine = z.object({
  id: z.union([z.string(), z.number()]),
  title: z.string().nullish(),
  contents: z.string(),
})

/** Passages of a JSONL corpus: {id, title, contents} or {id, contents}, where contents may begin with a quoted title. */
export async function* readCorpus(file: string, signal?: AbortSignal): AsyncGenerator<Passage> {
  for await (const { line, value } of readJsonLines(file, signal)) {
    const parsed = corpusLine.safeParse(value)
    if (!parsed.success) {
      const received = JSON.stringify(value).slice(0, 120)
      throw new SsrlError(
        'ERR_DATASET',
        `${file}:${line}: expected {"id": …, "title": …, "contents": …} but received ${received}`,
      )
    }
    const { id, title, contents } = parsed.data
    yield title ? { id: String(id), title, text: contents } : { id: String(id), ...splitContents(contents) }
  }
}

/**
 * Indexes passages into a folder; the index appears complete or not at all, and replaces one that was there.
 * @throws SsrlError `ERR_DATASET` for a line that is no passage, or when there is none; `ERR_SEARCH`, `ERR_IO`
 */
export async function buildIndex(
  passages: AsyncIterable<Passage> | Iterable<Passage>,
  directory: string,
  { signal, onProgress }: BuildIndexOptions = {},
): Promise<{ passages: number }> {
  await mkdir(directory, { recursive: true })
  const file = path.join(directory, fileName)
  const unfinished = `${file}.${process.pid}.incomplete`
  await rm(unfinished, { force: true })
  const database = await openDatabase(unfinished)
  try {
    const count = await fill(database, passages, { signal, onProgress })
    if (count === 0)
      throw new SsrlError('ERR_DATASET', 'Expected at least one passage in the corpus but found none')
    database.close()
    await rename(unfinished, file)
    return { passages: count }
  } catch (error) {
    database.close()
    await rm(unfinished, { force: true })
    throw error
  }
}

const insertsPerTurn = 2000
/** In an index of so many passages, words that stand in more than this share of them are common. */
const smallIndex = 100_000
const commonShare = 0.02

async function fill(
  database: Database.Database,
  passages: AsyncIterable<Passage> | Iterable<Passage>,
  { signal, onProgress }: BuildIndexOptions,
): Promise<number> {
  // Nothing of an unfinished index is kept, so that a crash may lose it.
  database.pragma('journal_mode = OFF')
  database.pragma('synchronous = OFF')
  // Ranking needs how often a word stands in a passage, and not where.
  database.exec(
    `CREATE VIRTUAL TABLE passages USING fts5(id UNINDEXED, title, text,
       tokenize = 'unicode61 remove_diacritics 2', detail = 'column');
     CREATE VIRTUAL TABLE words USING fts5vocab(passages, 'row');
     CREATE TABLE common(word TEXT PRIMARY KEY) WITHOUT ROWID;
     CREATE TABLE about(passages INTEGER)`,
  )
  const insert = database.prepare('INSERT INTO passages(id, title, text) VALUES (?, ?, ?)')
  const insertAll = database.transaction((batch: readonly Passage[]) => {
    for (const { id, title, text } of batch) insert.run(id, title ?? '', text)
  })
  let count = 0
  let batch: Passage[] = []
  const flush = () => {
    signal?.throwIfAborted()
    insertAll(batch)
    count += batch.length
    batch = []
    onProgress?.(count)
  }
  for await (const passage of passages) if (batch.push(passage) >= insertsPerTurn) flush()
  flush()
  database.exec(`INSERT INTO passages(passages) VALUES ('optimize')`)
  if (count >= smallIndex) {
    const threshold = Math.floor(count * commonShare)
    database.prepare('INSERT INTO common SELECT term FROM words WHERE doc > ?').run(threshold)
  }
  database.prepare('INSERT INTO about VALUES (?)').run(count)
  database.pragma(`user_version = ${version}`)
  return count
}

/** An index that is open for queries. They run on the calling thread: about a millisecond each for ten thousand passages. */
export class LocalIndex {
  /** Number of passages. */
  readonly size: number
  readonly directory: string
  readonly #database: Database.Database
  readonly #search: Database.Statement
  readonly #common: ReadonlySet<string>

  private constructor(database: Database.Database, directory: string) {
    this.#database = database
    this.directory = directory
    this.size = (database.prepare('SELECT passages FROM about').get() as { passages: number }).passages
    this.#search = database.prepare(
      `SELECT id, title, text, -bm25(passages) AS score FROM passages WHERE passages MATCH ? ORDER BY rank LIMIT ?`,
    )
    this.#common = new Set(database.prepare('SELECT word FROM common').pluck().all() as string[])
  }

  /** @throws SsrlError `ERR_SEARCH` where there is no index, or one of another version */
  static async open(directory: string): Promise<LocalIndex> {
    const file = path.join(directory, fileName)
    const database = await openDatabase(file, { readonly: true, fileMustExist: true }).catch(
      (cause: SsrlError) => {
        if (!/unable to open|does not exist/.test(cause.message)) throw cause
        throw new SsrlError(
          'ERR_SEARCH',
          `Expected an index in ${directory}, but there is no ${fileName}: ssrl index --corpus F --output ${directory}`,
          { cause },
        )
      },
    )
    try {
      const found = database.pragma('user_version', { simple: true })
      if (found === version) return new LocalIndex(database, directory)
      throw new SsrlError(
        'ERR_SEARCH',
        `Expected an index of version ${version} in ${directory} but found version ${found}: build it again by ssrl index`,
      )
    } catch (cause) {
      database.close()
      if (cause instanceof SsrlError) throw cause
      throw new SsrlError('ERR_SEARCH', `${file} is no index: ${(cause as Error).message}`, { cause })
    }
  }

  /** The best passages by BM25 of any of the query's words; none where no word is left or found. */
  search(query: string, topK: number): SearchDocument[] {
    const words = queryWords(query)
    // BM25 gives a word that stands in a large part of the passages next to no weight, and reading its list is what
    // costs the time: it is passed over where the others find something.
    const telling = words.filter((word) => !this.#common.has(word))
    const found = this.#match(telling, topK)
    return found.length > 0 || telling.length === words.length ? found : this.#match(words, topK)
  }

  close(): void {
    this.#database.close()
  }

  #match(words: readonly string[], topK: number): SearchDocument[] {
    if (words.length === 0) return []
    const match = words.map((word) => `"${word}"`).join(' OR ')
    const rows = this.#search.all(match, topK) as { id: string; title: string; text: string; score: number }[]
    return rows.map(({ id, title, text, score }) => ({ id, ...(title === '' ? {} : { title }), text, score }))
  }
}

/** Distinct words of a query in lower case, stop words aside unless nothing else is there. Words as FTS5 sees them. */
export function queryWords(query: string): string[] {
  const folded = query.slice(0, 4000).normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase()
  const words = [...new Set(folded.match(/[\p{L}\p{N}\p{Co}]+/gu) ?? [])].slice(0, 64)
  const telling = words.filter((word) => !stopWords.has(word))
  return telling.length > 0 ? telling : words
}
