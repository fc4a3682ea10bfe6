/** The generated parts of docs/cuda.md: what a card allows each kernel, what it takes of a multiprocessor, and its grids. */
import { exceptions, family, type Grid } from './cuda-grids.ts'
import type { Resources } from './cuda-resources.ts'
import type { Deviation } from './cuda-tolerances.ts'
import { cardOf, type GpuKernel, gpuKernels } from './gpu-kernels.ts'

const a100 = cardOf('NVIDIA A100-SXM4-80GB')!
const h100 = cardOf('NVIDIA H100 80GB HBM3')!

/** Percent of the limit to expect on an A100 and an H100, and why no more; by the beginning of a kernel's name. */
const expected: [name: string, a100: number, h100: number, reason: string][] = [
  ['matmul/8192', 65, 40, '1'],
  ['matmul-backward/', 60, 37, '1, and dx and dW are two launches'],
  ['matmul/256', 45, 25, 'tiles of 64: twice the traffic from L2 for each product'],
  ['matmul/32', 65, 55, '2'],
  ['attention/', 35, 20, '3'],
  ['attention-backward/', 25, 14, '3, and 7 products are computed for the 5 that count'],
  ['paged-attention/', 65, 60, '4'],
  ['policy-loss/', 40, 38, '5'],
  ['log-probs/', 40, 37, '5'],
  ['sample/256', 25, 20, '6'],
  ['sample/32', 7, 5, '6, on 32 multiprocessors'],
  ['rms-norm/', 80, 75, 'a row is read twice, the second time from L1'],
  ['rms-norm-backward/', 45, 40, "each warp's sum for the weight goes through L1 at every row"],
  ['swiglu/', 85, 85, '7'],
  ['swiglu-backward/', 85, 85, '7'],
  ['rope/', 75, 70, '7; the tables of cosines come from L2'],
  ['embedding/', 75, 75, '7; rows of the table lie anywhere'],
  [
    'embedding-backward/',
    30,
    25,
    'every warp reads all ids to find its own: tokens² / 2 words from L1 and L2',
  ],
  ['adamw/', 85, 85, '7'],
  ['global-norm/', 55, 45, '1,024 warps keep too few loads on their way'],
]

const number = (value: number, digits = 3) =>
  value >= 100 ? String(Math.round(value)) : value.toPrecision(digits)

function limitsRow(work: GpuKernel): string {
  const found = expected.find(([name]) => work.name.startsWith(name))
  if (found === undefined) throw new Error(`Expected a share of ${work.name}`)
  const [, ...shares] = found
  const limits = [a100, h100].map((card, i) => {
    const [memory, cores] = [work.bytes / card.bandwidth, work.flops / card.flops].map((s) => 1e6 * s)
    const least = Math.max(memory!, cores!)
    const bold = (value: number) => (value === least ? `**${number(value)}**` : number(value))
    return `${bold(memory!)} | ${cores === 0 ? '-' : bold(cores!)} | ${shares[i]} %`
  })
  const size = `${number(work.bytes / 1e6)} | ${work.flops === 0 ? '-' : number(work.flops / 1e9)}`
  return `| ${work.name} | ${size} | ${limits.join(' | ')} | ${shares[2]} |`
}

/** Bytes and operations of `npm run bench:gpu`'s kernels against two data sheets. */
export function limitsPart(): string {
  return [
    '| kernel / rows | MB | GFLOP | A100: memory, µs | tensor cores, µs | expected share | H100: memory, µs | tensor cores, µs | expected share | why |',
    '|---|---|---|---|---|---|---|---|---|---|',
    ...gpuKernels().map(limitsRow),
  ].join('\n')
}

/** One line a kernel, the two architectures side by side. */
export function resourcesPart(rows: readonly Resources[]): string {
  const main = rows.filter(({ sharedBytes }) => sharedBytes > 0)
  const lines = main
    .filter(({ architecture }) => architecture === 'sm_80')
    .map((row) => {
      const other = main.find(
        ({ kernel, architecture }) => kernel === row.kernel && architecture === 'sm_90',
      )!
      const half = (each: Resources) =>
        `${each.registers} | ${each.blocks} | ${Math.round(each.occupancyPercent)} % | ${each.limit}`
      const memory = (row.sharedBytes / 1024).toFixed(1)
      return `| \`${row.kernel}\` | ${row.threads} | ${memory} | ${half(row)} | ${half(other)} |`
    })
  return [
    '| kernel | threads | shared memory, KB | sm_80: registers | blocks | occupancy | limited by | sm_90: registers | blocks | occupancy | limited by |',
    '|---|---|---|---|---|---|---|---|---|---|---|',
    ...lines,
  ].join('\n')
}

/** Blocks on cards of 108 and of 132 multiprocessors. */
export function gridsPart(onA100: readonly Grid[], onH100: readonly Grid[]): string {
  const works = [...new Set(onA100.map(({ phase, work }) => `${phase}\n${work}`))]
  const describe = (all: readonly Grid[], key: string) =>
    all
      .filter(({ phase, work }) => `${phase}\n${work}` === key)
      .map(({ kernel, blocks }) => `${blocks.toLocaleString('en')} ${family(kernel)}`)
      .join(', ')
  const line = (key: string) => {
    const [few, many] = [describe(onA100, key), describe(onH100, key)]
    return `| ${key.replace('\n', ' | ')} | ${few} | ${few === many ? 'the same' : many} |`
  }
  return [
    '| phase | work | blocks, 108 multiprocessors | blocks, 132 |',
    '|---|---|---|---|',
    ...works.map(line),
    '',
    'Launches with fewer blocks than multiprocessors, and why that is so:',
    '',
    ...Object.entries(exceptions).map(([name, reason]) => `- \`${name}\`: ${reason}.`),
  ].join('\n')
}

/** Of each result: against the CPU, and against the reference in doubles. */
export function tolerancesPart(found: readonly Deviation[]): string {
  const show = (value: number) => (Number.isNaN(value) ? '-' : value === 0 ? 'equal' : value.toExponential(1))
  const lines = [...new Set(found.map(({ family }) => family))].map((name) => {
    const cells = (['f32', 'bf16'] as const).flatMap((dtype) => {
      const results = found.filter((each) => each.family === name && each.dtype === dtype)
      const worst = (values: number[]) => {
        const known = values.filter((value) => !Number.isNaN(value))
        return known.length === 0 ? '-' : show(Math.max(...known))
      }
      return [
        worst(results.map(({ fromCpu }) => fromCpu)),
        worst(results.map(({ fromReference }) => fromReference)),
      ]
    })
    return `| ${name} | ${cells.join(' | ')} |`
  })
  return [
    '| family | f32, from the CPU | f32, from doubles | bf16, from the CPU | bf16, from doubles |',
    '|---|---|---|---|---|',
    ...lines,
  ].join('\n')
}
