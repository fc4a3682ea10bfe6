/** The generated parts of README.md and docs/performance.md, and the pictures, from results.csv. */
import { lineChart, type Series } from '../lib/logging/svg.ts'
import { barChart } from './bars.ts'
import { variantsOf } from './cases.ts'
import { cpusOf, latestOf, type Measured } from './latest.ts'
import type { Row } from './results.ts'
import { outcomeOf, targets } from './targets.ts'

const variants = variantsOf([], { quick: false })
const ids = variants.map(({ id }) => id)
const titleOf = (id: string) => variants.find((variant) => variant.id === id)?.title ?? id
const none = '(No figures yet: `npm run bench -- --peers`, then `npm run docs:bench`.)'

const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  [head, head.map(() => '---'), ...rows]
    .map((cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`)
    .join('\n')

const figure = (value: number, digits = 3) =>
  Number.isFinite(value) ? Number(value.toPrecision(digits)).toLocaleString('en-US') : ''

/** Puts the text between `<!-- NAME -->` and `<!-- /NAME -->`, on lines of its own. */
export function fill(document: string, name: string, text: string): string {
  const [open, close] = [`<!-- ${name} -->`, `<!-- /${name} -->`]
  const start = document.indexOf(open)
  const end = document.indexOf(close)
  if (start < 0 || end < start) throw new Error(`Expected ${open} and ${close} in the document`)
  return `${document.slice(0, start + open.length)}\n${text}\n${document.slice(end)}`
}

/** Targets with what was measured on the CPU that was measured last. */
export function readmePart(rows: readonly Row[]): string {
  const cpu = cpusOf(rows)[0]
  return cpu === undefined ? none : targetTable(rows, cpu)
}

function targetTable(rows: readonly Row[], cpu: string): string {
  const measured = latestOf(rows, cpu, ids)
  const outcomes = targets.map((target) => outcomeOf(target, measured))
  const mark = (met: boolean | null) => (met === null ? 'not measured' : met ? 'yes' : 'no')
  const cells = outcomes.map(({ what, target, measured, met }) => [what, target, measured, mark(met)])
  return `${origin(measured)}\n\n${table(['', 'target', 'measured', 'reached'], cells)}`
}

/** Where, when and with what the figures were made. */
function origin(measured: readonly Measured[]): string {
  const all = measured.flatMap(({ rows }) => rows)
  const unique = (values: readonly string[]) => [...new Set(values)].filter((value) => value !== '').sort()
  const days = unique(all.map(({ run }) => run.slice(0, 10)))
  const commits = unique(all.map(({ commit }) => commit))
  const period = days.length > 1 ? `${days[0]} to ${days.at(-1)}` : days[0]
  const versions = unique(all.map((row) => row.versions)).join('; ')
  return `${measured[0]!.cpu}, ${all[0]!.threads} threads unless said otherwise, ${period}, ${commits.length > 1 ? 'commits' : 'commit'} ${commits.join(', ')}. ${versions}.`
}

/** For each CPU its targets, all rows, and the pictures. */
export function performancePart(rows: readonly Row[]): string {
  const cpus = cpusOf(rows)
  if (cpus.length === 0) return none
  return cpus.map((cpu, index) => machinePart(rows, cpu, index)).join('\n\n')
}

function machinePart(rows: readonly Row[], cpu: string, index: number): string {
  const measured = latestOf(rows, cpu, ids)
  const pictures = Object.keys(pictureFiles(rows)).filter((name) => name.startsWith(`${index + 1}-`))
  return [
    `### ${cpu}`,
    targetTable(rows, cpu),
    ...pictures.map((name) => `![${name.slice(2, -4)}](performance/${name})`),
    ...measured.map(variantPart),
  ].join('\n\n')
}

function variantPart({ variant, model, rows }: Measured): string {
  const head = [
    '',
    'figure',
    'p20 to p80',
    'times faster',
    'of the limit',
    'peak MiB',
    'optimizer',
    'remarks',
  ]
  const cells = rows.map((row) => [
    row.contender,
    Number.isFinite(row.median) ? `${figure(row.median)} ${row.unit}` : '',
    Number.isFinite(row.p20) ? `${figure(row.p20)} to ${figure(row.p80)}` : '',
    row.ratios.split('; ').join('<br>'),
    Number.isFinite(row.limitShare) ? `${figure(row.limitShare, 2)} %` : '',
    figure(row.peakMiB, 4),
    row.optimizer,
    [row.check, row.note].filter((text) => text !== '').join('; '),
  ])
  const used = head.map((_, column) => column === 0 || cells.some((row) => row[column] !== ''))
  const shown = (row: readonly string[]) => row.filter((_, column) => used[column])
  const threads = rows[0]!.threads === 1 ? '1 thread' : `${rows[0]!.threads} threads`
  return `**${titleOf(variant)}** (\`${variant}\`; ${model}; ${threads})\n\n${table(shown(head), cells.map(shown))}`
}

/** Pictures by file name: the number of the CPU, then what is shown. */
export function pictureFiles(rows: readonly Row[]): Record<string, string> {
  const files: Record<string, string> = {}
  for (const [index, cpu] of cpusOf(rows).entries()) {
    const measured = latestOf(rows, cpu, ids)
    for (const id of ['generate/32', 'generate-one', 'learner/4x256', 'grpo-step']) {
      const found = measured.find(({ variant }) => variant === id)
      if (found) files[`${index + 1}-${id.replace('/', '-')}.svg`] = bars(found)
    }
    for (const [name, beginning] of [
      ['prefill', 'prefill/'],
      ['learner-context', 'learner/context-'],
    ] as const) {
      const series = contextSeries(measured, beginning)
      const options = { title: `${name}: tokens a second`, xLabel: 'context, tokens' }
      if (series.length > 0) files[`${index + 1}-${name}.svg`] = lineChart(series, options)
    }
  }
  return files
}

function bars({ variant, rows }: Measured): string {
  const drawn = rows.filter(({ median }) => Number.isFinite(median))
  const title = `${titleOf(variant)}: ${drawn[0]?.unit ?? ''}`
  return barChart(
    drawn.map(({ contender, median, p20, p80 }) => ({ name: contender, value: median, low: p20, high: p80 })),
    title,
  )
}

/** One line a contender: its figure over the context. */
function contextSeries(measured: readonly Measured[], beginning: string): Series[] {
  const points = new Map<string, { x: number; y: number }[]>()
  for (const { variant, rows } of measured) {
    if (!variant.startsWith(beginning)) continue
    for (const { contender, median } of rows) {
      const line = points.get(contender) ?? []
      points.set(contender, line)
      line.push({ x: Number(variant.slice(beginning.length)), y: median })
    }
  }
  return [...points].map(([name, line]) => ({ name, points: line }))
}
