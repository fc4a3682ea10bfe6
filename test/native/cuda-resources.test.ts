/** What ptxas says of the kernels, for sm_80 and sm_90, and the tables that are made of it. */
import { readFileSync } from 'node:fs'
import test from 'ava'
import { gridsPart, limitsPart, resourcesPart } from '../../bench/cuda-documents.ts'
import { exceptions, family, grids } from '../../bench/cuda-grids.ts'
import { compiler, parseCsv, ptxasReports, readCsv, resources, toCsv } from '../../bench/cuda-resources.ts'
import { hasEmulated } from './devices.ts'

const reports = ptxasReports()
const stored = parseCsv(readCsv())
const page = readFileSync(new URL('../../docs/cuda.md', import.meta.url), 'utf8')

if (reports.length === 0) {
  test.skip('CUDA kernels: not compiled (node scripts/build-cuda.mjs library says why)', () => {})
}

for (const file of new Set(reports.map((report) => report.file))) {
  test(`CUDA kernels of ${file} use neither stack nor spills, on sm_80 and sm_90`, (t) => {
    const kernels = reports.filter((report) => report.file === file)
    t.deepEqual(new Set(kernels.map(({ architecture }) => architecture)), new Set(['sm_80', 'sm_90']))
    for (const { kernel, architecture, stackBytes, spillBytes, registers } of kernels) {
      t.is(stackBytes, 0, `${kernel} on ${architecture}: a stack frame of ${stackBytes} bytes`)
      t.is(spillBytes, 0, `${kernel} on ${architecture}: ${spillBytes} bytes of spills`)
      t.true(registers > 0 && registers <= 255)
    }
  })
}

const withBoth = reports.length > 0 && hasEmulated ? test.serial : test.skip
const withEmulated = hasEmulated ? test.serial : test.skip

withBoth(
  'bench/cuda-resources.csv is what the compiler and the launches say (npm run docs:cuda)',
  async (t) => {
    const rows = await resources()
    t.true(rows.every(({ blocks, occupancyPercent }) => blocks > 0 && occupancyPercent <= 100))
    // Another release counts registers otherwise; all else must hold.
    const same = compiler() === stored.nvcc
    const comparable = (all: typeof rows) =>
      same
        ? all
        : all.map(({ file, kernel, architecture, threads, sharedBytes }) => ({
            file,
            kernel,
            architecture,
            threads,
            sharedBytes,
          }))
    t.deepEqual(comparable(stored.rows), comparable(rows))
    if (same) t.is(readCsv(), toCsv(rows, stored.nvcc))
  },
)

test('docs/cuda.md has the table of bench/cuda-resources.csv and the limits of the kernels that are measured', (t) => {
  t.true(page.includes(resourcesPart(stored.rows)), 'npm run docs:cuda')
  t.true(page.includes(limitsPart()), 'npm run docs:cuda')
})

withEmulated(
  'grids fill cards of 108 and 132 multiprocessors, but for exceptions that docs/cuda.md tells',
  async (t) => {
    const made = [await grids(108), await grids(132)] as const
    for (const [i, multiprocessors] of [108, 132].entries()) {
      for (const { phase, work, kernel, blocks } of made[i]!) {
        if (family(kernel) in exceptions) continue
        // 112 blocks keep 132 multiprocessors busy enough.
        t.true(blocks >= 0.8 * multiprocessors, `${phase}, ${work}: ${kernel} has ${blocks} blocks`)
      }
    }
    t.true(page.includes(gridsPart(...made)), 'npm run docs:cuda')
  },
)
