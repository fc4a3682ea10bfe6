import { Command } from 'commander'
import { painterFor } from './colors.ts'
import { print, printJson } from './common.ts'
import { type DoctorReport, examine } from './doctor-report.ts'

export function doctorCommand(): Command {
  return new Command('doctor')
    .description(
      'Says what this machine offers, what is missing and what to do about it; exits 1 without a working addon.',
    )
    .option('--json', 'print the report as JSON')
    .action(async (options: { json?: boolean }) => {
      const report = await examine()
      if (options.json) printJson(report)
      else print(format(report))
      process.exitCode = report.addon.loaded ? 0 : 1
    })
}

function gigabytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`
}

function exactness(value: boolean | null): string {
  if (value === null) return 'not tried'
  return value ? 'holds' : 'does not hold'
}

function describeGpu({ driver, runtime, devices, missing, used }: DoctorReport['gpu']): string {
  if (missing !== null) return `none is used: ${missing}`
  const described = devices.map((device, index) => {
    const what = `cuda:${index} ${device.name}, ${gigabytes(device.memory)}, compute capability ${device.capability}`
    return device.missing === null ? what : `${what} (can't be used)`
  })
  const versions = `driver for CUDA ${driver}, built with ${runtime}`
  return `${described.join('; ')}; ${versions}; 'auto' takes ${used ?? 'the CPU'}`
}

function format(report: DoctorReport): string {
  const paint = painterFor(process.stdout)
  const { node, cpu, threads, memory, gpu, addon, exact, advice } = report
  const rows: [string, string][] = [
    ['Node.js', `${node.version} on ${node.platform} (${node.supported})`],
    ['CPU', `${cpu.model}, ${cpu.cores} cores: ${cpu.features.join(' ') || 'no SIMD extension known'}`],
    ['threads', threads.setting === null ? `${threads.default}` : `${threads.setting} (SSRL_THREADS)`],
    [
      'memory',
      `${gigabytes(memory.available)} available, limit ${gigabytes(memory.limit)} of ${gigabytes(memory.total)}`,
    ],
    ['GPU', describeGpu(gpu)],
    ['addon', addon.loaded ? `loaded; oneDNN ${addon.oneDnn}; ${addon.build}` : `not loaded: ${addon.error}`],
    [
      'exactness',
      `f32 ${exactness(exact.f32)}, bf16 ${exactness(exact.bf16)} (log-probs of sampler and scorer, bit for bit)`,
    ],
  ]
  const lines = rows.map(([name, value]) => `${paint('bold', name.padEnd(10))} ${value}`)
  if (advice.length > 0) lines.push('', paint('bold', 'What to do'), ...advice.map((line) => `- ${line}`))
  return lines.join('\n')
}
