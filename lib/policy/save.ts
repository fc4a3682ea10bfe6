import { randomBytes } from 'node:crypto'
import { mkdir, open, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { SsrlError } from '../errors.ts'
import type { NativePolicy } from '../native.ts'
import { runNative } from '../native-call.ts'
import { type GenerationConfig, writeGenerationConfig } from './generation-config.ts'
import { type ModelConfig, toHuggingFaceConfig } from './model-config.ts'
import { indexName } from './model-files.ts'
import { parameterShapes } from './parameters.ts'
import type { Tokenizer } from './tokenizer.ts'

export interface SavedPolicy {
  native: NativePolicy
  config: ModelConfig
  generationConfig: GenerationConfig
  tokenizer: Tokenizer | null
}

export type SaveType = 'f32' | 'bf16' | 'f16'

export interface SaveFormat {
  dtype: SaveType
  /** a weight file holds at most this many bytes of tensors, and at least one tensor */
  shardBytes: number
  signal?: AbortSignal
}

const bytesOf = { f32: 4, bf16: 2, f16: 2 } as const
const nativeNames = { f32: 'F32', bf16: 'BF16', f16: 'F16' } as const

/** Writes a folder in Hugging Face layout: complete and synced, or not at all. */
export async function savePolicy(policy: SavedPolicy, directory: string, format: SaveFormat): Promise<void> {
  await replaceDirectory(directory, async (temporary) => {
    const config = toHuggingFaceConfig(policy.config, format.dtype)
    await writeFile(join(temporary, 'config.json'), `${JSON.stringify(config, null, 2)}\n`)
    await writeGenerationConfig(temporary, policy.generationConfig)
    await policy.tokenizer?.save(temporary)
    await saveWeights(policy, temporary, format)
  })
}

async function saveWeights({ native, config }: SavedPolicy, directory: string, format: SaveFormat) {
  const { dtype, signal } = format
  const shards = planShards(config, format)
  const nameOf = (i: number) => shardName(i, shards.length)
  for (const [i, shard] of shards.entries()) {
    const names = shard.map(({ name }) => name)
    signal?.throwIfAborted()
    await runNative(() =>
      native.writeSafetensors(join(directory, nameOf(i)), names, nativeNames[dtype], { format: 'pt' }),
    )
  }
  if (shards.length === 1) return
  const entries = shards.flatMap((shard, i) => shard.map(({ name }) => [name, nameOf(i)]))
  const total = shards.flat().reduce((sum, { bytes }) => sum + bytes, 0)
  const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(entries) }
  await writeFile(join(directory, indexName), `${JSON.stringify(index, null, 2)}\n`)
}

/** Fills one file after the other, in the order of the network. */
function planShards(config: ModelConfig, { dtype, shardBytes }: SaveFormat) {
  const shards: { name: string; bytes: number }[][] = []
  let room = 0
  for (const [name, shape] of parameterShapes(config)) {
    const bytes = shape.reduce((product, size) => product * size, bytesOf[dtype])
    if (shards.length === 0 || bytes > room) {
      shards.push([])
      room = shardBytes
    }
    shards.at(-1)!.push({ name, bytes })
    room -= bytes
  }
  return shards
}

function shardName(index: number, count: number): string {
  if (count === 1) return 'model.safetensors'
  const pad = (value: number) => String(value).padStart(5, '0')
  return `model-${pad(index + 1)}-of-${pad(count)}.safetensors`
}

/**
 * Fills a folder beside `directory`, syncs it, and puts it in its place by renaming: a reader sees the old folder or the
 * new one, whole.
 * @throws SsrlError ERR_IO when the disk is full or the path can't be written; the old folder is untouched then
 */
export async function replaceDirectory(
  directory: string,
  fill: (temporary: string) => Promise<void>,
): Promise<void> {
  const target = resolve(directory)
  const suffix = randomBytes(4).toString('hex')
  const temporary = join(dirname(target), `.${basename(target)}.${suffix}.incomplete`)
  try {
    await mkdir(temporary, { recursive: true })
    await fill(temporary)
    for (const name of await readdir(temporary)) await syncPath(join(temporary, name))
    await syncPath(temporary)
    await swap(temporary, target, join(dirname(target), `.${basename(target)}.${suffix}.old`))
    await syncPath(dirname(target))
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {})
    throw asIoError(error, target)
  }
}

async function swap(temporary: string, target: string, aside: string) {
  // A folder can only take the place of an empty one, so the old one steps aside for a moment.
  const moved = await rename(target, aside).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return false
      throw error
    },
  )
  try {
    await rename(temporary, target)
  } catch (error) {
    if (moved) await rename(aside, target)
    throw error
  }
  if (moved) await rm(aside, { recursive: true, force: true })
}

/** Waits until a file, or the names in a folder, are on the disk. */
export async function syncPath(path: string) {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** An error of the file system as ERR_IO; others come back as they are. */
export function asIoError(error: unknown, target: string): unknown {
  if (error instanceof SsrlError || !(error instanceof Error) || !('syscall' in error)) return error
  const { code } = error as NodeJS.ErrnoException
  const reason = code === 'ENOSPC' ? 'no space left on the device' : error.message
  return new SsrlError('ERR_IO', `Can't write ${target}: ${reason}`, { cause: error })
}
