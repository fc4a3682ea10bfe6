/** Prints the tables of docs/runs/quickstart.md from docs/runs/quickstart.json: `npx tsx scripts/quickstart-report.ts`. */
import { readFileSync } from 'node:fs'

interface Figures {
  format: number
  wellFormed: number
  greedyExactMatch: number
  pass: Record<string, number>
}

interface Study {
  seed: number
  seconds: { pretraining: number; mainJob: number }
  before: Figures & Probes
  after: Figures & Probes
  ownSamples: Figures & { correctSamples: number }
  mismatch: number
}

interface Probes {
  recall: number
  twoHop: { questions: number; direct: number; searching: number }
}

const studies: Study[] = JSON.parse(
  readFileSync(new URL('../docs/runs/quickstart.json', import.meta.url), 'utf8'),
)
const figure = (value: number | undefined) => (value ?? Number.NaN).toFixed(2)
const row = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
const table = (heading: readonly string[], rows: readonly (readonly string[])[]) =>
  [row(heading), row(heading.map(() => '---')), ...rows.map(row)].join('\n')

const figures = (f: Figures) =>
  [f.format, f.wellFormed, f.greedyExactMatch, f.pass['1'], f.pass['4'], f.pass['16']].map(figure)
const main = studies.flatMap((s) => [
  [String(s.seed), 'before', ...figures(s.before)],
  ['', 'after SSRL', ...figures(s.after)],
  ['', `SFT on its own ${s.ownSamples.correctSamples} right samples`, ...figures(s.ownSamples)],
])
const probes = studies.flatMap((s) =>
  (['before', 'after'] as const).map((when) => {
    const { recall, twoHop } = s[when]
    const cells = [recall, twoHop.direct, twoHop.searching].map(figure)
    return [when === 'before' ? String(s.seed) : '', when, ...cells, String(twoHop.questions)]
  }),
)
const print = (text: string) => process.stdout.write(`${text}\n\n`)
print(table(['seed', '', 'format', 'well-formed', 'greedy EM', 'pass@1', 'pass@4', 'pass@16'], main))
print(
  table(['seed', '', 'facts recalled', 'two-hop, direct', 'two-hop, searching', 'two-hop questions'], probes),
)
print(
  table(
    ['seed', 'seconds of pretraining', 'seconds of the main job', 'largest mismatch'],
    studies.map(({ seed, seconds, mismatch }) =>
      [seed, seconds.pretraining, seconds.mainJob, mismatch].map(String),
    ),
  ),
)
