import { Command, Option } from 'commander'
import { METRICS, type Metric, type Scores, type Summary } from '../evaluation/summary.ts'
import type { FormatMode } from '../rollout/format.ts'
import { integer, note, print, printJson } from './common.ts'

interface ScoreFlags {
  data: string[]
  output?: string
  format: FormatMode
  seed: number
  json?: boolean
}

/** `ssrl score`: scores completions that already exist. */
export function scoreCommand(): Command {
  return new Command('score')
    .description(
      'Score existing completions. Each line of a file has the completion in "response" (or "completion") and the right answers in "golden_answers".',
    )
    .requiredOption('-d, --data <files...>', 'JSONL or parquet files; each is a benchmark named by its file')
    .option('-o, --output <folder>', 'write predictions.jsonl and summary.json here')
    .addOption(
      new Option('--format <mode>', 'rule of the format score')
        .choices(['strict', 'reference'])
        .default('strict'),
    )
    .option('--seed <n>', 'seed of the bootstrap intervals', integer({ min: 0 }), 0)
    .option('--json', 'print the summary as JSON')
    .action(score)
}

async function score(flags: ScoreFlags): Promise<void> {
  const { scoreFiles } = await import('../evaluation/score.ts')
  const { data, output, format, seed } = flags
  const summary = await scoreFiles({ data, output, format, seed })
  if (flags.json) printJson(summary)
  else printSummary(summary)
  if (output !== undefined) note(`wrote predictions.jsonl and summary.json into ${output}`)
}

const TITLES: Record<Metric, string> = { em: 'EM', f1: 'F1', cover_em: 'cover-EM', format: 'format' }

/** The table of an evaluation's summary, and the scoring rule. */
export function printSummary(summary: Summary): void {
  const rows = Object.entries(summary.benchmarks).map(([name, row]) =>
    cells(name, String(row.n), row, row.interval),
  )
  const several = rows.length > 1
  if (several) {
    const { micro } = summary
    rows.push(cells('mean of benchmarks', '', summary.macro))
    rows.push(cells('all questions', String(micro.n), micro, micro.interval))
  }
  const header = ['benchmark', 'n', ...METRICS.map((metric) => TITLES[metric])]
  const table = [header, ...rows]
  const widths = header.map((_, column) => Math.max(...table.map((row) => row[column]!.length)))
  for (const row of table)
    print(
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
  print()
  print(`Scoring: ${summary.scoring}`)
}

function cells(
  name: string,
  n: string,
  scores: Scores,
  interval?: Record<Metric, [number, number]>,
): string[] {
  const values = METRICS.map((metric) => {
    const bounds = interval?.[metric].map((bound) => bound.toFixed(3)).join(', ')
    return scores[metric].toFixed(3) + (bounds ? ` [${bounds}]` : '')
  })
  return [name, n, ...values]
}
