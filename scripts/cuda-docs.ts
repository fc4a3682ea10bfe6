// Writes bench/cuda-resources.csv and the generated parts of docs/cuda.md. `node scripts/build-cuda.mjs emulated` and
// `... library` come first.
import { readFileSync, writeFileSync } from 'node:fs'
import { gridsPart, limitsPart, resourcesPart, tolerancesPart } from '../bench/cuda-documents.ts'
import { grids } from '../bench/cuda-grids.ts'
import { compiler, csvFile, resources, toCsv } from '../bench/cuda-resources.ts'
import { deviations } from '../bench/cuda-tolerances.ts'
import { fill } from '../bench/documents.ts'

const nvcc = compiler()
if (nvcc === null) throw new Error('Expected nvcc, which counts the registers')
const rows = await resources()
writeFileSync(csvFile, toCsv(rows, nvcc))

const file = new URL('../docs/cuda.md', import.meta.url)
const parts = {
  limits: limitsPart(),
  resources: resourcesPart(rows),
  grids: gridsPart(await grids(108), await grids(132)),
  tolerances: tolerancesPart(await deviations()),
}
let text = readFileSync(file, 'utf8')
for (const [name, part] of Object.entries(parts)) text = fill(text, name, part)
writeFileSync(file, text)
