import { existsSync } from 'node:fs'
import { cp, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import { execa } from 'execa'
import type { DoctorReport } from '../../lib/cli/doctor-report.ts'
import { loadNative } from '../../lib/native.ts'
import { firstUsable } from '../../lib/policy/device.ts'

const doctor = (args: string[], cwd = '.', env: Record<string, string> = {}) =>
  execa('node', ['--import=tsx', 'lib/cli/main.ts', 'doctor', ...args], {
    cwd,
    reject: false,
    env: { NO_COLOR: '1', ...env },
  })

async function folderWithoutAddon(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'ssrl-doctor-'))
  await cp('lib', path.join(folder, 'lib'), { recursive: true })
  await cp('package.json', path.join(folder, 'package.json'))
  await symlink(path.resolve('node_modules'), path.join(folder, 'node_modules'))
  return folder
}

test('without the addon it still reports the machine, says how to build it and exits 1', async (t) => {
  const folder = await folderWithoutAddon()
  t.teardown(() => rm(folder, { recursive: true }))
  const json = await doctor(['--json'], folder)
  t.is(json.exitCode, 1)
  const report = JSON.parse(json.stdout) as DoctorReport
  t.false(report.addon.loaded)
  t.regex(report.addon.error!, /can't be loaded/)
  t.regex(report.advice[0]!, /scripts\/setup\.sh$/)
  t.true(report.cpu.cores > 0)
  t.true(report.memory.total > 0)
  t.deepEqual(report.exact, { f32: null, bf16: null })

  const text = await doctor([], folder)
  t.is(text.exitCode, 1)
  t.regex(text.stdout, /^addon +not loaded/m)
  t.regex(text.stdout, /^What to do$/m)
})

test('a thread setting that makes no sense is pointed out', async (t) => {
  const folder = await folderWithoutAddon()
  t.teardown(() => rm(folder, { recursive: true }))
  const { stdout } = await doctor(['--json'], folder, { SSRL_THREADS: 'many' })
  const report = JSON.parse(stdout) as DoctorReport
  t.true(report.advice.some((line) => line.includes("SSRL_THREADS is 'many'")))
})

test('with the addon it tries exactness for each dtype that the CPU computes and exits 0', async (t) => {
  const { stdout, exitCode } = await doctor(['--json'])
  const report = JSON.parse(stdout) as DoctorReport
  t.is(exitCode, 0)
  t.true(report.addon.loaded)
  t.regex(report.addon.oneDnn!, /^\d+\.\d+/)
  t.not(report.exact.f32, null)
  t.is(report.exact.bf16 === null, !loadNative().environment().bf16)
  t.true(report.memory.limit <= report.memory.total)
})

test('a setting that the addon refuses is told as wrong usage, not as a missing addon', async (t) => {
  const { stderr, exitCode } = await doctor([], '.', { SSRL_MEMORY: 'plenty' })
  t.is(exitCode, 2)
  t.regex(stderr, /^error ERR_INVALID_ARG: .*SSRL_MEMORY.*"plenty"$/)
})

test('it names the devices that it finds, and which of them auto takes', async (t) => {
  if (!existsSync('build/Release/ssrl-emulated.node')) return t.pass()
  const env = { SSRL_EMULATED: '1' }
  const { gpu } = JSON.parse((await doctor(['--json'], '.', env)).stdout) as DoctorReport
  t.is(gpu.missing, null)
  t.is(gpu.used, 'cuda:0')
  t.is(gpu.driver, '12.0')
  t.deepEqual(
    gpu.devices.map(({ name, capability, missing }) => ({ name, capability, missing })),
    [0, 1].map((i) => ({ name: `emulated device ${i}`, capability: '8.0', missing: null })),
  )
})

test('without a GPU it says what is missing', async (t) => {
  if (firstUsable(loadNative().cuda()) !== null) return t.pass()
  const { stdout } = await doctor([])
  t.regex(
    stdout,
    /^GPU +none is used: (This build has no CUDA part|There is no NVIDIA driver|The NVIDIA driver)/m,
  )
})
