import { existsSync, readFileSync } from 'node:fs'
import os from 'node:os'
import { SsrlError } from '../errors.ts'
import {
  type DType,
  loadNative,
  type NativeAddon,
  type NativeCuda,
  type NativeEnvironment,
  setupCommand,
} from '../native.ts'
import { callNative } from '../native-call.ts'
import { type DeviceName, firstUsable } from '../policy/device.ts'
import { exactnessSelfTest } from './exactness.ts'

export interface DoctorReport {
  node: { version: string; platform: string; supported: 'tested' | 'untested' }
  cpu: { model: string; cores: number; features: string[] }
  threads: { default: number; setting: string | null }
  /** Bytes. `limit` is the smallest of the cgroup's, SSRL_MEMORY and what the machine has. */
  memory: { total: number; available: number; limit: number }
  /** Device files of the driver, versions, what can be used, and why nothing can. `used`: what 'auto' takes. */
  gpu: {
    files: string[]
    driver: string | null
    runtime: string | null
    devices: NativeCuda['devices']
    missing: string | null
    used: DeviceName | null
  }
  addon: { loaded: boolean; build: string | null; oneDnn: string | null; error: string | null }
  /** Per dtype: does the sampler's log-prob equal the scorer's, bit for bit? Null where it could not be tried. */
  exact: Record<DType, boolean | null>
  advice: string[]
}

const cpuFeatures = ['avx2', 'fma', 'avx512f', 'avx512bw', 'avx512_bf16', 'amx_tile', 'amx_bf16']

export async function examine(): Promise<DoctorReport> {
  const { native, error } = tryLoad()
  const environment = native ? callNative(() => native.environment()) : null
  const report: DoctorReport = {
    node: nodeReport(),
    cpu: cpuReport(environment),
    threads: {
      default: environment?.cores ?? os.availableParallelism(),
      setting: process.env.SSRL_THREADS ?? null,
    },
    memory: memoryReport(environment),
    gpu: gpuReport(native),
    addon: {
      loaded: native !== null,
      build: environment?.build ?? null,
      oneDnn: environment?.dnnl ?? null,
      error: error?.message ?? null,
    },
    exact: { f32: null, bf16: null },
    advice: [],
  }
  if (native && environment) {
    report.exact.f32 = await exactnessSelfTest(native, 'f32')
    if (environment.bf16) report.exact.bf16 = await exactnessSelfTest(native, 'bf16')
  }
  report.advice = adviseOn(report, environment)
  return report
}

function tryLoad(): { native: NativeAddon | null; error: SsrlError | null } {
  try {
    const native = loadNative()
    if (typeof native.cuda === 'function') return { native, error: null }
    return {
      native: null,
      error: new SsrlError('ERR_NATIVE_LOAD', 'it was built from other sources than these'),
    }
  } catch (error) {
    if (error instanceof SsrlError && error.code === 'ERR_NATIVE_LOAD') return { native: null, error }
    throw error
  }
}

function nodeReport(): DoctorReport['node'] {
  const tested = process.platform === 'linux' && process.arch === 'x64'
  return {
    version: process.version,
    platform: `${process.platform} ${process.arch}`,
    supported: tested ? 'tested' : 'untested',
  }
}

function cpuReport(environment: NativeEnvironment | null): DoctorReport['cpu'] {
  if (environment) return { model: environment.cpu, cores: environment.cores, features: environment.features }
  const model = os.cpus()[0]?.model.trim() ?? 'unknown'
  const flags = existsSync('/proc/cpuinfo')
    ? (readFileSync('/proc/cpuinfo', 'utf8')
        .match(/^flags\s*:(.*)$/m)?.[1]
        ?.trim()
        .split(' ') ?? [])
    : []
  return {
    model,
    cores: os.availableParallelism(),
    features: cpuFeatures.filter((feature) => flags.includes(feature)),
  }
}

function memoryReport(environment: NativeEnvironment | null): DoctorReport['memory'] {
  if (environment) {
    const { memoryTotal: total, memoryAvailable: available, memoryLimit: limit } = environment
    return { total, available, limit }
  }
  const total = os.totalmem()
  return { total, available: os.freemem(), limit: Math.min(total, process.constrainedMemory() || total) }
}

function gpuReport(native: NativeAddon | null): DoctorReport['gpu'] {
  const files = Array.from({ length: 16 }, (_, index) => `/dev/nvidia${index}`).filter((file) =>
    existsSync(file),
  )
  if (!native) {
    const missing = 'The addon is missing'
    return { files, driver: null, runtime: null, devices: [], missing, used: null }
  }
  const cuda = callNative(() => native.cuda())
  const { devices, missing } = cuda
  const driver = versionOf(cuda.driver)
  return { files, driver, runtime: versionOf(cuda.runtime), devices, missing, used: firstUsable(cuda) }
}

/** 12040 is 12.4. */
function versionOf(version: number): string | null {
  return version > 0 ? `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}` : null
}

function adviseOn(report: DoctorReport, environment: NativeEnvironment | null): string[] {
  const advice: string[] = []
  const setting = report.threads.setting === null ? null : Number(report.threads.setting)
  if (!report.addon.loaded)
    advice.push(`The addon is missing. Install what it needs and build it: ${setupCommand()}`)
  if (report.node.supported === 'untested') advice.push(`${report.node.platform} has not been tested.`)
  if (environment && !environment.bf16) {
    advice.push(
      'This CPU computes in f32 only (bf16 needs AVX-512); generation and training take about twice as long.',
    )
  }
  if (Object.values(report.exact).includes(false)) {
    advice.push('The exactness self-test failed: training makes a second forward pass for old log-probs.')
  }
  if (setting !== null && !(Number.isSafeInteger(setting) && setting > 0)) {
    advice.push(`SSRL_THREADS is '${report.threads.setting}': expected a whole number above 0.`)
  } else if (setting !== null && setting > report.threads.default) {
    advice.push(
      `SSRL_THREADS is ${setting}, but there are ${report.threads.default} cores: more threads than cores are slower.`,
    )
  }
  if (Math.min(report.memory.available, report.memory.limit) < 2 ** 30) {
    advice.push(
      'Less than 1 GiB of memory is available: enough for the quickstart, not for a model of 135M parameters.',
    )
  }
  const { files, missing, devices } = report.gpu
  if (report.addon.loaded && files.length > 0 && missing !== null)
    advice.push(`A GPU is there, but not used. ${missing}.`)
  for (const device of devices) if (device.missing !== null) advice.push(`${device.missing}.`)
  return advice
}
