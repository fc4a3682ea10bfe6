import { readFileSync } from 'node:fs'
import { type DType, loadNative, type NativeModelConfig, type NativePolicy } from '../../lib/native.ts'
import { toNativeConfig } from '../../lib/policy/load.ts'
import { type ModelConfig, parseModelConfig } from '../../lib/policy/model-config.ts'
import { setNativePolicy } from '../../lib/policy/native-handle.ts'
import { tensorSources } from '../../lib/policy/parameters.ts'
import type { Policy } from '../../lib/policy/policy.ts'

/** What this machine computes in. */
export const computeTypes: readonly DType[] = loadNative().environment().bf16 ? ['f32', 'bf16'] : ['f32']

export function readConfig(folder: string): ModelConfig {
  return parseModelConfig(JSON.parse(readFileSync(`${folder}/config.json`, 'utf8')))
}

/** Loads a folder of one weight file through the addon alone. */
export async function loadNativePolicy(
  folder: string,
  { dtype = 'f32' as DType, threads = 2, file = 'model.safetensors', device = 'cpu' } = {},
): Promise<NativePolicy> {
  const native = loadNative()
  const config = readConfig(folder)
  const weights = await native.readTensorFile(`${folder}/${file}`)
  return native.loadPolicy({
    config: toNativeConfig(config),
    device,
    dtype,
    threads,
    files: [`${folder}/${file}`],
    sources: tensorSources(config, weights.format, [weights]),
    abort: null,
    onProgress: null,
  })
}

/** A small policy of random weights, for what needs no reference. */
export function initializeNativePolicy(
  config: Partial<NativeModelConfig> = {},
  { dtype = 'f32' as DType, threads = 2, seed = 1, standardDeviation = 0.05, device = 'cpu' } = {},
): Promise<NativePolicy> {
  return loadNative().initializePolicy({
    config: { ...smallConfig, ...config },
    device,
    dtype,
    threads,
    seed,
    standardDeviation,
  })
}

/** Sizes that no tile or vector divides. */
export const smallConfig: NativeModelConfig = {
  architecture: 'LlamaForCausalLM',
  hiddenSize: 36,
  intermediateSize: 58,
  numLayers: 3,
  numHeads: 6,
  numKvHeads: 2,
  headDim: 10,
  vocabSize: 131,
  maxPositions: 512,
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  ropeScaling: null,
  ropeFactors: null,
  qkvBias: false,
  outputBias: false,
  mlpBias: false,
  qkNorm: false,
  tieWordEmbeddings: true,
}

/** What the learner takes for a Policy. */
export function policyAround(native: NativePolicy): Policy {
  const handle = {}
  setNativePolicy(handle, native)
  return handle as Policy
}
