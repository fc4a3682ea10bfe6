import { SsrlError } from '../errors.ts'
import { type DType, loadNative, type NativeModelConfig, type NativePolicy } from '../native.ts'
import { callNative, runNative } from '../native-call.ts'
import { chooseDevice, type DeviceChoice, type DeviceName } from './device.ts'
import { checkDevice } from './device-check.ts'
import { type GenerationConfig, parseJson, readGenerationConfig } from './generation-config.ts'
import { configFromGguf, type GgufMetadata } from './gguf-config.ts'
import type { HubProgress } from './hub.ts'
import { locatePolicy, type PolicyLocation } from './locate.ts'
import { type ModelConfig, parseModelConfig } from './model-config.ts'
import { tensorSources } from './parameters.ts'
import { expect, refuseUnknown } from './sampling.ts'
import { Tokenizer } from './tokenizer.ts'
import { readIfThere } from './tokenizer-files.ts'

export interface DeviceOptions {
  /** default 'auto': a CUDA device where there is one, else the CPU; SSRL_DEVICE is honoured */
  device?: DeviceChoice
  /** default: bf16 where the device computes it, else f32 */
  dtype?: DType
  /** default: SSRL_THREADS, else all physical cores that the process may use */
  threads?: number
}

/** Where a download or a load stands. */
export type LoadProgress =
  | ({ phase: 'download' } & HubProgress)
  | {
      phase: 'load'
      /** bytes of f32 weights so far, and in all */
      loadedBytes: number
      totalBytes: number
    }

export interface LoadOptions extends DeviceOptions {
  /** branch, tag or commit, for hub ids; default main */
  revision?: string
  signal?: AbortSignal
  onProgress?: (progress: LoadProgress) => void
}

/** A policy's files, read but for the weights. */
export interface PolicyDescription {
  location: PolicyLocation
  config: ModelConfig
  generationConfig: GenerationConfig
  /** null where there is none */
  tokenizer: Tokenizer | null
  /** every tensor of the weight files */
  files: {
    path: string
    tensors: readonly { name: string; dtype: string; shape: number[]; bytes: number }[]
  }[]
}

/** A device choice, made. */
export interface Device {
  device: DeviceName
  dtype: DType
  threads: number
}

const deviceKeys = ['device', 'dtype', 'threads']
const loadKeys = [...deviceKeys, 'revision', 'signal', 'onProgress']

/** Finds and reads what describes a policy; a hub id is downloaded first. */
export async function describePolicy(source: string, options: LoadOptions = {}): Promise<PolicyDescription> {
  expect(typeof source === 'string' && source !== '', 'a folder, a .gguf file or org/name', 'source', source)
  expect(typeof options === 'object' && options !== null, 'an object', 'options', options)
  refuseUnknown(options, loadKeys, 'option')
  const { revision, signal, onProgress } = options
  const location = await locatePolicy(source, {
    revision,
    signal,
    onProgress: onProgress && ((progress) => onProgress({ phase: 'download', ...progress })),
  })
  const native = loadNative()
  const files = await Promise.all(
    location.weightFiles.map((path) => runNative(() => native.readTensorFile(path))),
  )
  const parts = await (location.format === 'gguf'
    ? describeGguf(location, files[0]!)
    : describeFolder(location))
  const described = files.map(({ tensors }, i) => ({ path: location.weightFiles[i]!, tensors }))
  parts.tokenizer?.checkVocabulary(parts.config.vocabSize, parts.config.eosTokenIds)
  return { location, ...parts, files: described }
}

async function describeFolder({ directory }: PolicyLocation) {
  const config = parseModelConfig(
    parseJson((await readIfThere(`${directory}/config.json`)) ?? '', 'config.json'),
  )
  const [generationConfig, tokenizer] = await Promise.all([
    readGenerationConfig(directory),
    Tokenizer.fromFolder(directory),
  ])
  return { config, generationConfig, tokenizer }
}

/** A GGUF carries everything; a tokenizer.json and a generation_config.json beside it are preferred. */
async function describeGguf(
  { directory, weightFiles }: PolicyLocation,
  file: { metadata: Record<string, unknown>; tensors: { name: string; shape: number[] }[] },
) {
  const metadata = file.metadata as GgufMetadata
  const path = weightFiles[0]!
  const hasFactors = file.tensors.some(({ name }) => name === 'rope_freqs.weight')
  const factors = hasFactors
    ? ((await runNative(() => loadNative().readTensor(path, 'rope_freqs.weight'))) as Float32Array)
    : undefined
  const config = configFromGguf(metadata, file.tensors, factors)
  const [generationConfig, beside] = await Promise.all([
    readGenerationConfig(directory),
    Tokenizer.fromFolder(directory),
  ])
  return { config, generationConfig, tokenizer: beside ?? Tokenizer.fromGguf(metadata) }
}

/**
 * @throws SsrlError ERR_NO_DEVICE for a device or a dtype that this machine lacks, ERR_INVALID_ARG for anything else
 */
export function resolveDevice(options: DeviceOptions = {}): Device {
  const device = chooseDevice(String(options.device ?? (process.env.SSRL_DEVICE || 'auto')))
  const environment = callNative(() => loadNative().environment())
  const hasBf16 = device !== 'cpu' || environment.bf16
  const dtype = options.dtype ?? (hasBf16 ? 'bf16' : 'f32')
  expect(dtype === 'f32' || dtype === 'bf16', "'f32' or 'bf16'", 'dtype', dtype)
  if (dtype === 'bf16' && !hasBf16) {
    throw new SsrlError(
      'ERR_NO_DEVICE',
      "This CPU can't compute in bf16 (it needs AVX-512): use dtype 'f32', or leave dtype out",
    )
  }
  return { device, dtype, threads: resolveThreads(options.threads, environment.cores) }
}

const mostThreads = 1024

function resolveThreads(threads: number | undefined, cores: number): number {
  const isCount = (value: unknown) =>
    Number.isInteger(value) && (value as number) >= 1 && (value as number) <= mostThreads
  if (threads !== undefined) {
    expect(isCount(threads), `an integer from 1 to ${mostThreads}`, 'threads', threads)
    return threads
  }
  const setting = process.env.SSRL_THREADS
  if (!setting) return cores
  expect(isCount(Number(setting)), `an integer from 1 to ${mostThreads}`, 'SSRL_THREADS', setting)
  return Number(setting)
}

/** Reads the weights and packs them for computing. */
export async function loadWeights(
  description: PolicyDescription,
  device: Device,
  options: LoadOptions,
): Promise<NativePolicy> {
  const { config, location, files } = description
  const sources = tensorSources(config, location.format, files)
  const { onProgress } = options
  await checkDevice(device.device, device.dtype)
  return runNative(
    (abort) =>
      loadNative().loadPolicy({
        config: toNativeConfig(config),
        dtype: device.dtype,
        threads: device.threads,
        device: device.device,
        files: location.weightFiles,
        sources,
        abort,
        onProgress: onProgress
          ? (loadedBytes, totalBytes) => onProgress({ phase: 'load', loadedBytes, totalBytes })
          : null,
      }),
    options.signal,
  )
}

export function toNativeConfig(config: ModelConfig): NativeModelConfig {
  const { scaling, theta } = config.rope
  return {
    architecture: config.architecture,
    hiddenSize: config.hiddenSize,
    intermediateSize: config.intermediateSize,
    numLayers: config.numLayers,
    numHeads: config.numHeads,
    numKvHeads: config.numKvHeads,
    headDim: config.headDim,
    vocabSize: config.vocabSize,
    maxPositions: config.maxPositions,
    rmsNormEps: config.rmsNormEps,
    ropeTheta: theta,
    ropeScaling: config.ropeFactors ? null : scaling,
    ropeFactors: config.ropeFactors ?? null,
    qkvBias: config.qkvBias,
    outputBias: config.outputBias,
    mlpBias: config.mlpBias,
    qkNorm: config.qkNorm,
    tieWordEmbeddings: config.tieWordEmbeddings,
  }
}
