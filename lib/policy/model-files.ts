import { basename } from 'node:path'
import { SsrlError } from '../errors.ts'
import { parseJson } from './generation-config.ts'

/** Names the shards of a model's weights. */
export const indexName = 'model.safetensors.index.json'

/** `org/name`, or `org/name:file.gguf` where a repository has several. */
export interface HubId {
  repository: string
  file?: string
}

/** Reads a hub id; null when the text is none. */
export function parseHubId(source: string): HubId | null {
  const match = /^([\w-][\w.-]*\/[\w-][\w.-]*)(?::([\w-][\w./-]*\.gguf))?$/.exec(source)
  if (!match || source.includes('..')) return null
  return match[2] === undefined ? { repository: match[1]! } : { repository: match[1]!, file: match[2] }
}

/** @throws SsrlError ERR_MODEL_FORMAT when the index is malformed or names files outside its folder */
export function shardNames(indexText: string, where: string): string[] {
  const index = parseJson(indexText, where) as { weight_map?: unknown } | null
  const map = index?.weight_map
  if (typeof map !== 'object' || map === null || Array.isArray(map)) {
    throw new SsrlError('ERR_MODEL_FORMAT', `Expected an object for weight_map in ${where}`)
  }
  const names = [...new Set(Object.values(map))]
  const bad = names.find(
    (name) => typeof name !== 'string' || basename(name) !== name || !name.endsWith('.safetensors'),
  )
  if (names.length === 0 || bad !== undefined) {
    throw new SsrlError(
      'ERR_MODEL_FORMAT',
      `Expected names of .safetensors files in weight_map of ${where} but received ${JSON.stringify(bad) ?? 'none'}`,
    )
  }
  return (names as string[]).sort()
}
