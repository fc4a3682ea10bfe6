/** Rows of a data set, whichever file format holds them. */
import { open } from 'node:fs/promises'
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'
import { SsrlError } from '../errors.ts'
import { readJsonLines } from './lines.ts'

export interface Row {
  /** Line of a JSONL file or row of a parquet file, counted from 1. */
  line: number
  fields: Record<string, unknown>
}

/**
 * The rows of a JSONL or parquet file (told apart by its first bytes), in order. Throws `ERR_DATASET` for a file that
 * cannot be read, a line that is not JSON and a row that is not an object.
 */
export async function* readRows(path: string, signal?: AbortSignal): AsyncGenerator<Row> {
  if (await isParquet(path)) {
    yield* readParquet(path, signal)
    return
  }
  for await (const { line, value } of readJsonLines(path, signal)) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new SsrlError(
        'ERR_DATASET',
        `${path}:${line}: expected an object with named fields but received ${describeType(value)}`,
      )
    }
    yield { line, fields: value as Record<string, unknown> }
  }
}

/** The kind of a value, for messages. */
export function describeType(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return `a list of ${value.length}`
  if (value === undefined) return 'nothing'
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`
}

async function isParquet(path: string): Promise<boolean> {
  try {
    const file = await open(path)
    try {
      const { bytesRead, buffer } = await file.read(Buffer.alloc(4), 0, 4, 0)
      return bytesRead === 4 && buffer.toString('latin1') === 'PAR1'
    } finally {
      await file.close()
    }
  } catch (cause) {
    throw new SsrlError('ERR_DATASET', `Cannot read ${path}: ${(cause as Error).message}`, { cause })
  }
}

async function* readParquet(path: string, signal?: AbortSignal): AsyncGenerator<Row> {
  let line = 0
  for await (const rows of readRowGroups(path, signal)) {
    for (const row of rows) {
      line++
      yield { line, fields: withoutBigInts(row) as Record<string, unknown> }
    }
  }
}

async function* readRowGroups(path: string, signal?: AbortSignal): AsyncGenerator<Record<string, unknown>[]> {
  try {
    const file = await asyncBufferFromFile(path)
    const metadata = await parquetMetadataAsync(file)
    let rowStart = 0
    for (const group of metadata.row_groups) {
      signal?.throwIfAborted()
      const rowEnd = rowStart + Number(group.num_rows)
      yield await parquetReadObjects({ file, metadata, compressors, rowStart, rowEnd })
      rowStart = rowEnd
    }
  } catch (cause) {
    signal?.throwIfAborted()
    throw new SsrlError('ERR_DATASET', `Cannot read the parquet file ${path}: ${(cause as Error).message}`, {
      cause,
    })
  }
}

/** 64-bit integers as numbers, or as text where a number would not be exact: rows must go into JSON again. */
function withoutBigInts(value: unknown): unknown {
  if (typeof value === 'bigint') {
    const number = Number(value)
    return Number.isSafeInteger(number) ? number : value.toString()
  }
  if (Array.isArray(value)) return value.map(withoutBigInts)
  if (value === null || typeof value !== 'object' || Object.getPrototypeOf(value) !== Object.prototype)
    return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, withoutBigInts(inner)]))
}
