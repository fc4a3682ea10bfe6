/** A corpus on disk, ranked by BM25: SQLite's FTS5 in one file, which opens in milliseconds whatever its size. */
import { mkdir, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { z } from 'zod'
import { readJsonLines } from '../data/lines.ts'
import { SsrlError } from '../errors.ts'
import { splitContents } from './http.ts'
import type { SearchDocument } from './provider.ts'
import { type Database, openDatabase } from './sqlite.ts'
import { stopWords } from './stop-words.ts'

/** Raised when the layout changes: an older index must be built again. */
const version = 2
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

export interface ReadCorpusOptions {
  signal?: AbortSignal
  /** Called before each passage with the bytes of the file up to its end. */
  onRead?: (bytes: number) => void
}

/**
 * Passages of a JSONL corpus: {id, title, contents} or {id, contents}, where contents may begin with a quoted title.
 * @throws SsrlError `ERR_DATASET` for a line that is no passage, with its number
 */
export async function* readCorpus(file: string, options: ReadCorpusOptions = {}): AsyncGenerator<Passage> {
  for await (const { line, value, bytes } of readJsonLines(file, options.signal)) {
    const parsed = corpusLine.safeParse(value)
    if (!parsed.success) {
      const received = JSON.stringify(value).slice(0, 120)
      throw new SsrlError(
        'ERR_DATASET',
        `${file}:${line}: expected {"id": …, "title": …, "contents": …} but received ${received}`,
      )
    }
    const { id, title, contents } = parsed.data
    options.onRead?.(bytes)
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

/** Passages between two looks at signals and timers. */
const insertsPerTurn = 100
/** Bytes of postings that are gathered in memory before they are written as one sorted piece. */
const gatheredBytes = 2 ** 25
/** Pages that one turn of putting the pieces together may write. */
const mergedPages = 500
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
  // BM25 asks how often a word stands in a passage: with less detail SQLite would split each passage into words again.
  database.exec(
    `CREATE VIRTUAL TABLE passages USING fts5(id UNINDEXED, title, text,
       tokenize = 'unicode61 remove_diacritics 2', detail = 'full');
     INSERT INTO passages(passages, rank) VALUES ('hashsize', ${gatheredBytes});
     CREATE VIRTUAL TABLE words USING fts5vocab(passages, 'row');
     CREATE TABLE common(word TEXT PRIMARY KEY) WITHOUT ROWID;
     CREATE TABLE about(passages INTEGER);
     BEGIN`,
  )
  const insert = database.prepare('INSERT INTO passages(id, title, text) VALUES (?, ?, ?)')
  const rest = async (count: number) => {
    onProgress?.(count)
    await setImmediate()
    signal?.throwIfAborted()
  }
  signal?.throwIfAborted()
  let count = 0
  for await (const { id, title, text } of passages) {
    insert.run(id, title ?? '', text)
    count += 1
    if (count % insertsPerTurn === 0) await rest(count)
  }
  database.exec('COMMIT')
  await rest(count)
  await mergeAll(database, () => rest(count))
  if (count >= smallIndex) {
    const threshold = Math.floor(count * commonShare)
    database.prepare('INSERT INTO common SELECT term FROM words WHERE doc > ?').run(threshold)
  }
  database.prepare('INSERT INTO about VALUES (?)').run(count)
  database.pragma(`user_version = ${version}`)
  return count
}

/** Puts all pieces of the index into one, as 'optimize' does, but in turns. */
async function mergeAll(database: Database.Database, rest: () => Promise<void>): Promise<void> {
  const merge = database.prepare(`INSERT INTO passages(passages, rank) VALUES ('merge', ?)`)
  const changes = database.prepare('SELECT total_changes()').pluck()
  const step = (pages: number) => {
    const before = changes.get() as number
    merge.run(pages)
    return (changes.get() as number) - before
  }
  // A negative number begins; fewer than two changes: there was nothing left to do.
  for (let pages = -mergedPages; step(pages) >= 2; pages = mergedPages) await rest()
}

/** An index that is open for queries, which run on the calling thread; `localProvider` has a thread of its own for them. */
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

  /** The best passages by BM25 of any of the query's words; none where no word is found. */
  search(query: string, topK: number): SearchDocument[] {
    const words = queryWords(query)
    const common = words.filter((word) => this.#common.has(word))
    const rare = words.filter((word) => !this.#common.has(word))
    if (common.length === 0 || rare.length === 0) return this.#match(anyOf(words), topK)
    // Scoring is what costs time. A passage that holds none of the rarer words is hardly ever among the best, so only the
    // others are scored, by all words; those without a common word are asked for by themselves, as FTS5 has no way to
    // say that a word counts where it stands and need not stand anywhere.
    const [with_, without] = ['AND', 'NOT'].map((operator) =>
      this.#match(`(${anyOf(rare)}) ${operator} (${anyOf(common)})`, topK),
    )
    const found = [...with_!, ...without!].toSorted((a, b) => b.score! - a.score!).slice(0, topK)
    return found.length > 0 ? found : this.#match(anyOf(words), topK)
  }

  close(): void {
    this.#database.close()
  }

  #match(expression: string, topK: number): SearchDocument[] {
    if (expression === '') return []
    const rows = this.#search.all(expression, topK) as Found[]
    return rows.map(({ id, title, text, score }) => ({ id, ...(title === '' ? {} : { title }), text, score }))
  }
}

interface Found {
  id: string
  title: string
  text: string
  score: number
}

const anyOf = (words: readonly string[]) => words.map((word) => `"${word}"`).join(' OR ')

/** Distinct words of a query in lower case, stop words aside unless nothing else is there. Words as FTS5 sees them. */
export function queryWords(query: string): string[] {
  const folded = query.slice(0, 4000).normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase()
  const words = [...new Set(folded.match(/[\p{L}\p{N}\p{Co}]+/gu) ?? [])].slice(0, 64)
  const telling = words.filter((word) => !stopWords.has(word))
  return telling.length > 0 ? telling : words
}
