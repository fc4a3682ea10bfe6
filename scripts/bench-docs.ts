// Writes the generated parts of README.md and docs/performance.md, and its pictures, from bench/results.csv.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { fill, performancePart, pictureFiles, readmePart } from '../bench/documents.ts'
import { readRows } from '../bench/results.ts'

const root = new URL('../', import.meta.url)
const rows = await readRows()

function rewrite(name: string, part: string): void {
  const file = new URL(name, root)
  writeFileSync(file, fill(readFileSync(file, 'utf8'), 'bench', part))
}

rewrite('README.md', readmePart(rows))
rewrite('docs/performance.md', performancePart(rows))

const folder = new URL('docs/performance/', root)
const files = pictureFiles(rows)
mkdirSync(folder, { recursive: true })
for (const name of readdirSync(folder)) if (!(name in files)) rmSync(new URL(name, folder))
for (const [name, svg] of Object.entries(files)) writeFileSync(new URL(name, folder), svg)
