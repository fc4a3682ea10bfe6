/**
 * What each CUDA kernel takes of a multiprocessor: registers from ptxas, threads and shared memory from what is
 * launched, and the occupancy that follows from them by NVIDIA's rules. bench/cuda-resources.csv holds the table.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import type { Launch } from './cuda-launches.ts'
import * as launches from './cuda-launches.ts'

export interface Resources {
  file: string
  kernel: string
  architecture: 'sm_80' | 'sm_90'
  registers: number
  stackBytes: number
  spillBytes: number
  threads: number
  /** all of it dynamic: the kernels have no other */
  sharedBytes: number
  /** of a multiprocessor */
  blocks: number
  warps: number
  occupancyPercent: number
  limit: string
}

/** CUDA C++ Programming Guide, technical specifications per compute capability. */
const multiprocessors = {
  sm_80: { sharedBytes: 164 << 10 },
  sm_90: { sharedBytes: 228 << 10 },
}
const registersOfMultiprocessor = 65536
const warpsOfMultiprocessor = 64
const blocksOfMultiprocessor = 32
/** The system's part of each block's shared memory. */
const reservedBytes = 1024

const root = new URL('../', import.meta.url)
const reports = new URL('build/cuda/', root)
const table = new URL('bench/cuda-resources.csv', root)

export interface Ptxas {
  file: string
  kernel: string
  architecture: string
  registers: number
  stackBytes: number
  spillBytes: number
  staticBytes: number
}

/** What ptxas said when the library was built; nothing where it was not. */
export function ptxasReports(): Ptxas[] {
  const files = existsSync(reports) ? readdirSync(reports).filter((name) => name.endsWith('.ptxas')) : []
  return files.sort().flatMap((file) => {
    const entries = readFileSync(new URL(file, reports), 'utf8')
      .split(/Compiling entry function '/)
      .slice(1)
    const names = demangle(entries.map((entry) => entry.match(/^[^']+/)![0]))
    return entries.map((entry, i) => {
      const number = (pattern: RegExp) => Number(entry.match(pattern)?.[1] ?? 0)
      return {
        ...{ file: file.replace('.ptxas', '.cu'), kernel: names[i]! },
        architecture: entry.match(/for '(sm_\d+)'/)![1]!,
        registers: number(/Used (\d+) registers/),
        stackBytes: number(/(\d+) bytes stack frame/),
        spillBytes: number(/(\d+) bytes spill stores/),
        staticBytes: number(/(\d+) bytes smem/),
      }
    })
  })
}

function demangle(names: string[]): string[] {
  const { stdout } = spawnSync('c++filt', ['--no-params'], { encoding: 'utf8', input: names.join('\n') })
  return stdout
    .trim()
    .split('\n')
    .map((name) =>
      name
        .replace(/^void /, '')
        .replace(/ssrl::cuda::|ssrl::|_GLOBAL__N__\w+::|\(anonymous namespace\)::/g, '')
        .replace(/ >/g, '>'),
    )
}

/** Every kernel that uses shared memory, in all its instances. */
export async function allLaunches(): Promise<Map<string, Launch>> {
  const found: Launch[] = []
  const record = async (count: number, work: () => Promise<unknown>) => {
    found.push(...(await launches.launchesOf(work, count)))
  }
  // Deep enough for as many warps as a block can have.
  for (const count of [1, 132]) {
    await record(count, () => launches.product({ rows: 32, inputs: 1100, outputs: 40 }))
    await record(count, () => launches.productBackward({ rows: 32, inputs: 40, outputs: 1100 }))
    await record(count, () => launches.productBackward({ rows: 1100, inputs: 40, outputs: 32 }))
  }
  for (const dtype of ['bf16', 'f32'] as const) {
    for (const headDim of [32, 64, 128, 256]) {
      const shape = { lengths: [300, 1], heads: 8, kvHeads: 1, headDim, dtype }
      await record(132, () => launches.attention(shape))
      await record(1, () => launches.attention(shape))
      await record(132, () => launches.attentionBackward(shape))
    }
    for (const count of [1, 6, 15, 20, 132]) {
      const size = { rows: 70, inputs: 300, outputs: 136, dtype }
      await record(count, () => launches.product(size))
      await record(count, () => launches.productBackward(size))
    }
    await record(132, () => launches.logProbs({ rows: 3, inputs: 8, vocabulary: 100, dtype }))
    await record(132, () => launches.policyLoss({ rows: 3, inputs: 8, vocabulary: 100, dtype }))
  }
  await record(132, () => launches.sampling(3, 100))
  const largest = new Map<string, Launch>()
  for (const launch of found) {
    const known = largest.get(launch.kernel)
    if (known === undefined || known.threads < launch.threads) largest.set(launch.kernel, launch)
  }
  return largest
}

/** Of a kernel without shared memory, whose launches need not be seen: the bound that its source gives. */
function threadsOf({ file, kernel }: Ptxas): number {
  const source = readFileSync(new URL(`native/ops/cuda/${file}`, root), 'utf8')
  const name = kernel.replace(/<.*/, '')
  const bound = source.match(new RegExp(`__launch_bounds__\\((\\w+)[^)]*\\)\\s+${name}\\b`))?.[1]
  const value = bound && /^\d+$/.test(bound) ? bound : source.match(new RegExp(`\\b${bound} = (\\d+)`))?.[1]
  if (value === undefined) throw new Error(`Expected __launch_bounds__ of ${name} in ${file}`)
  return Number(value)
}

const usesSharedMemory = (file: string) =>
  readFileSync(new URL(`native/ops/cuda/${file}`, root), 'utf8').includes('shared_memory<')

function occupancy(registers: number, threads: number, sharedBytes: number, architecture: 'sm_80' | 'sm_90') {
  const warps = threads / 32
  // Registers go to warps in pieces of 256.
  const byRegisters = Math.floor(
    Math.floor(registersOfMultiprocessor / (Math.ceil((registers * 32) / 256) * 256)) / warps,
  )
  const all = multiprocessors[architecture].sharedBytes
  const limits = {
    registers: byRegisters,
    'shared memory': Math.floor(all / (sharedBytes + reservedBytes)),
    warps: Math.floor(warpsOfMultiprocessor / warps),
    blocks: blocksOfMultiprocessor,
  }
  const blocks = Math.min(...Object.values(limits))
  const limit = Object.entries(limits).find(([, value]) => value === blocks)![0]
  const resident = blocks * warps
  return { blocks, warps: resident, occupancyPercent: (100 * resident) / warpsOfMultiprocessor, limit }
}

/** For every kernel, both architectures. */
export async function resources(): Promise<Resources[]> {
  const seen = await allLaunches()
  const rows = ptxasReports().map((report): Resources => {
    const { file, kernel, registers, stackBytes, spillBytes, staticBytes } = report
    const architecture = report.architecture as Resources['architecture']
    const launch = seen.get(kernel)
    if (launch === undefined && usesSharedMemory(file))
      throw new Error(`${kernel} of ${file} was not launched`)
    const threads = launch?.threads ?? threadsOf(report)
    const sharedBytes = staticBytes + (launch?.sharedBytes ?? 0)
    return {
      ...{ file, kernel, architecture, registers, stackBytes, spillBytes, threads, sharedBytes },
      ...occupancy(registers, threads, sharedBytes, architecture),
    }
  })
  return rows.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))
}

const keyOf = ({ file, kernel, architecture }: Resources) => `${file} ${kernel} ${architecture}`

/** The release of the nvcc that builds the library: others count registers otherwise. */
export function compiler(): string | null {
  const cache = new URL('build/CMakeCache.txt', root)
  const nvcc = existsSync(cache) ? readFileSync(cache, 'utf8').match(/^SSRL_NVCC:FILEPATH=(.*)$/m)?.[1] : null
  if (!nvcc || nvcc.endsWith('NOTFOUND')) return null
  const { stdout } = spawnSync(nvcc, ['--version'], { encoding: 'utf8' })
  return stdout?.match(/V(\d+\.\d+\.\d+)/)?.[1] ?? null
}

const columns = [
  ...['file', 'kernel', 'architecture', 'registers', 'stackBytes', 'spillBytes', 'threads', 'sharedBytes'],
  ...['blocks', 'warps', 'occupancyPercent', 'limit'],
] as (keyof Resources)[]

export function toCsv(rows: readonly Resources[], nvcc: string): string {
  const lines = rows.map((row) =>
    columns.map((column) => (column === 'kernel' ? `"${row.kernel}"` : String(row[column]))).join(','),
  )
  return `${[[...columns, 'nvcc'].join(','), ...lines.map((line) => `${line},${nvcc}`)].join('\n')}\n`
}

export const readCsv = (): string => readFileSync(table, 'utf8')

export function parseCsv(text: string): { rows: Resources[]; nvcc: string } {
  const [, ...lines] = text.trim().split('\n')
  const cells = lines.map((line) => line.match(/"[^"]*"|[^,]+/g)!.map((cell) => cell.replaceAll('"', '')))
  const rows = cells.map(
    (row) =>
      Object.fromEntries(
        columns.map((column, i) => [column, Number.isNaN(Number(row[i])) ? row[i] : Number(row[i])]),
      ) as unknown as Resources,
  )
  return { rows, nvcc: cells[0]!.at(-1)! }
}

export const csvFile = table
