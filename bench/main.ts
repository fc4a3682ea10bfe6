/** `npm run bench`, `ssrl bench`. */
import os from 'node:os'
import { fileURLToPath } from 'node:url'
import { execa } from 'execa'
import { parseSettings, usage } from './arguments.ts'
import { variantsOf } from './cases.ts'
import { readQuestions } from './prompts.ts'
import { appendRows, type Row, resultsFile } from './results.ts'
import { measure, type Session } from './runner.ts'

const prefix = process.env.SSRL_BENCH_GPU === undefined ? '' : 'gpu/'

async function main(argv: string[]): Promise<void> {
  if (argv.includes('--help') || argv.includes('-h')) return console.log(usage)
  const settings = parseSettings(argv, resultsFile)
  const session: Session = {
    settings,
    questions: await readQuestions(),
    run: { run: new Date().toISOString(), commit: await commit(), cpu: machine() },
    limits: new Map(),
    note: (text) => console.error(text),
  }
  const all: Row[] = []
  for (const variant of variantsOf(settings.names, settings)) {
    console.error(`${variant.id}: ${variant.title}`)
    // Figures of a GPU stand apart from those of the CPU.
    const rows = (await measure(variant, session)).map((row) => ({
      ...row,
      variant: `${prefix}${row.variant}`,
    }))
    if (settings.output !== undefined) await appendRows(rows, settings.output)
    all.push(...rows)
  }
  console.table(all.map(shown))
}

/** bench/gpu.ts names the GPU that computes. */
function machine(): string {
  return process.env.SSRL_BENCH_GPU ?? os.cpus()[0]?.model ?? 'unknown'
}

async function commit(): Promise<string> {
  const cwd = fileURLToPath(new URL('.', import.meta.url))
  const { stdout: head } = await execa('git', ['rev-parse', '--short', 'HEAD'], { cwd, reject: false })
  const { stdout: changes } = await execa(
    'git',
    ['status', '--porcelain', '--untracked-files=no', '--', '../lib', '../native'],
    { cwd, reject: false },
  )
  return changes === '' ? String(head) : `${head} changed`
}

function shown(row: Row) {
  const { variant, contender, unit, median, p20, p80, limitShare, peakMiB, ratios, note, check } = row
  const figure = (value: number) => (Number.isFinite(value) ? Number(value.toPrecision(4)) : '')
  return {
    variant,
    contender,
    figure: figure(median),
    unit,
    'p20…p80': Number.isFinite(p20) ? `${figure(p20)}…${figure(p80)}` : '',
    'limit %': figure(limitShare),
    'peak MiB': figure(peakMiB),
    'times faster': ratios,
    remarks: [check, note].filter(Boolean).join('; '),
  }
}

try {
  await main(process.argv.slice(2))
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 2
}
