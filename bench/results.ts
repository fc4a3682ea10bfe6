/** bench/results.csv: one row a contender, variant and run; rows are added, never changed. */
import { appendFile, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

export const resultsFile = fileURLToPath(new URL('results.csv', import.meta.url))

/** Empty texts and NaN stand for what was not measured. */
export interface Row {
  /** the same for all rows of one run */
  run: string
  commit: string
  cpu: string
  threads: number
  variant: string
  model: string
  contender: string
  /** of weights and products; of the optimizer's master weights and moments */
  dtype: string
  optimizer: string
  unit: string
  median: number
  p20: number
  p80: number
  samples: number
  /** how many times faster ours is, of the same row of the table: a text of `contender ×` pairs */
  ratios: string
  /** percent of what the matrix products alone would allow */
  limitShare: number
  peakMiB: number
  /** what was compared before the figure counts, and how it came out */
  check: string
  versions: string
  note: string
}

const numeric = ['threads', 'median', 'p20', 'p80', 'samples', 'limitShare', 'peakMiB'] as const
export const columns: (keyof Row)[] = [
  'run',
  'commit',
  'cpu',
  'threads',
  'variant',
  'model',
  'contender',
  'dtype',
  'optimizer',
  'unit',
  'median',
  'p20',
  'p80',
  'samples',
  'ratios',
  'limitShare',
  'peakMiB',
  'check',
  'versions',
  'note',
]

function field(value: string | number): string {
  if (typeof value === 'number') return Number.isFinite(value) ? String(Number(value.toPrecision(6))) : ''
  return /[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value
}

export function toLine(row: Row): string {
  return columns.map((name) => field(row[name])).join(',')
}

export async function appendRows(rows: readonly Row[], file = resultsFile): Promise<void> {
  const before = await readFile(file, 'utf8').catch(() => '')
  const head = before === '' ? `${columns.join(',')}\n` : ''
  if (rows.length > 0) await appendFile(file, head + rows.map((row) => `${toLine(row)}\n`).join(''))
}

/** @throws Error where the file's columns are others than today's */
export function parseRows(text: string): Row[] {
  const [head, ...records] = parseCsv(text)
  if (head === undefined) return []
  if (head.join() !== columns.join()) {
    throw new Error(`Expected the columns ${columns.join()} in the results but found ${head.join()}`)
  }
  return records.map((fields) => {
    const row = Object.fromEntries(columns.map((name, i) => [name, fields[i] ?? '']))
    for (const name of numeric) row[name] = (row[name] === '' ? Number.NaN : Number(row[name])) as never
    return row as unknown as Row
  })
}

export async function readRows(file = resultsFile): Promise<Row[]> {
  return parseRows(await readFile(file, 'utf8').catch(() => ''))
}

/** Fields may be quoted, and then hold commas, line ends and doubled quotes (RFC 4180). */
function parseCsv(text: string): string[][] {
  const records: string[][] = []
  let record: string[] = []
  const pattern = /("(?:[^"]|"")*"|[^",\n][^,\n]*|)(,|\n|$)/y
  while (pattern.lastIndex < text.length) {
    const match = pattern.exec(text)
    if (!match) throw new Error(`Expected a closing quote in the results after ${records.length} rows`)
    const [, raw, end] = match
    record.push(raw!.startsWith('"') ? raw!.slice(1, -1).replaceAll('""', '"') : raw!)
    if (end === ',') continue
    records.push(record)
    record = []
  }
  return records
}
