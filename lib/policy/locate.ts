import { readdir, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { SsrlError } from '../errors.ts'
import type { HubOptions } from './hub.ts'
import { parseHubId, shardNames } from './model-files.ts'
import { readIfThere } from './tokenizer-files.ts'

/** Where a policy's files lie. */
export interface PolicyLocation {
  format: 'safetensors' | 'gguf'
  /** the folder with config.json, tokenizer and the rest; beside a .gguf file they are optional */
  directory: string
  /** absolute paths of the weight files: one or many safetensors shards, or one .gguf */
  weightFiles: string[]
  /** the commit, for what came from the hub */
  revision?: string
}

/**
 * Finds a policy: an existing folder or .gguf file, else a hub id, whose files are downloaded unless they are cached.
 * @throws SsrlError ERR_IO when nothing is there, ERR_MODEL_FORMAT when a folder holds no weights
 */
export async function locatePolicy(source: string, options: HubOptions = {}): Promise<PolicyLocation> {
  if (typeof source !== 'string' || source === '') {
    throw new SsrlError(
      'ERR_INVALID_ARG',
      'Expected a folder, a .gguf file or a hub id (org/name) for the policy',
    )
  }
  const kind = await pathKind(source)
  if (kind === 'folder') return locateInFolder(resolve(source))
  if (kind === 'file') return locateFile(resolve(source))
  const id = parseHubId(source)
  const looksLikePath = source.endsWith('.gguf') && !source.includes(':')
  if (!id || looksLikePath) {
    throw new SsrlError(
      'ERR_IO',
      `No such file or folder: ${source}. Expected a folder in Hugging Face layout, a .gguf file, or a hub id such as org/name`,
    )
  }
  // most policies are local: the hub's client is loaded when one is not
  const { downloadModel } = await import('./hub.ts')
  const { directory, files, revision } = await downloadModel(id, options)
  const gguf = files.find((file) => file.endsWith('.gguf'))
  if (gguf) return { format: 'gguf', directory, weightFiles: [join(directory, gguf)], revision }
  return { ...(await locateInFolder(directory)), revision }
}

function locateFile(path: string): PolicyLocation {
  if (path.endsWith('.gguf')) return { format: 'gguf', directory: dirname(path), weightFiles: [path] }
  throw new SsrlError(
    'ERR_MODEL_FORMAT',
    `Expected a .gguf file or a folder but received the file ${path}; pass the folder that holds config.json and the weights`,
  )
}

/** A folder's weights: what model.safetensors.index.json names, model.safetensors, or else the only .gguf. */
export async function locateInFolder(directory: string): Promise<PolicyLocation> {
  const names = (await readdir(directory)).sort()
  const shards = await indexedShards(directory)
  const safetensors = shards ?? (names.includes('model.safetensors') ? ['model.safetensors'] : [])
  if (safetensors.length > 0) {
    const missing = safetensors.find((name) => !names.includes(name))
    if (missing)
      throw new SsrlError('ERR_MODEL_FORMAT', `${directory} lacks ${missing}, which its index names`)
    if (!names.includes('config.json'))
      throw new SsrlError('ERR_MODEL_FORMAT', `${directory} has no config.json`)
    return { format: 'safetensors', directory, weightFiles: safetensors.map((name) => join(directory, name)) }
  }
  const ggufs = names.filter((name) => name.endsWith('.gguf'))
  if (ggufs.length === 1) return { format: 'gguf', directory, weightFiles: [join(directory, ggufs[0]!)] }
  throw new SsrlError(
    'ERR_MODEL_FORMAT',
    ggufs.length > 1
      ? `${directory} has several .gguf files (${ggufs.join(', ')}): name one of them`
      : `${directory} holds no weights: expected model.safetensors, model.safetensors.index.json with its shards, or a .gguf file`,
  )
}

/** The shards that model.safetensors.index.json names, or null without such a file. */
async function indexedShards(directory: string): Promise<string[] | null> {
  const name = 'model.safetensors.index.json'
  const text = await readIfThere(join(directory, name))
  return text === undefined ? null : shardNames(text, join(directory, name))
}

async function pathKind(path: string): Promise<'folder' | 'file' | null> {
  try {
    const found = await stat(path)
    return found.isDirectory() ? 'folder' : 'file'
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return null
    throw new SsrlError('ERR_IO', `Can't read ${path}: ${(cause as Error).message}`, { cause })
  }
}
