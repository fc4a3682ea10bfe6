// Draws values of step records over the steps: npm run plot -- steps.jsonl out.svg [reward.mean format.mean …]
import { writeFileSync } from 'node:fs'
import { readJsonl } from '../lib/logging/jsonl.ts'
import { lineChart, seriesOf } from '../lib/logging/svg.ts'

const [input, output, ...paths] = process.argv.slice(2)
if (input === undefined || output === undefined) {
  console.error('usage: npm run plot -- steps.jsonl out.svg [reward.mean format.mean exactMatch.mean …]')
  process.exit(2)
}
const records = await readJsonl<{ step: number }>(input)
const wanted = paths.length > 0 ? paths : ['reward.mean', 'format.mean', 'exactMatch.mean']
const series = wanted.map((path) => seriesOf(records, path)).filter(({ points }) => points.length > 0)
writeFileSync(output, lineChart(series, { title: wanted.join(', '), xLabel: 'step' }))
