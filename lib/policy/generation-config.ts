import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SsrlError } from '../errors.ts'
import { ConfigReader } from './config-reader.ts'
import { readIfThere } from './tokenizer-files.ts'

export const generationConfigName = 'generation_config.json'

/** What ends a generation, and what else stood in generation_config.json. */
export interface GenerationConfig {
  bosTokenId?: number
  eosTokenIds: number[]
  padTokenId?: number
  /** A policy trained to stop at `</answer>` may never write its end token: other software learns here where to stop. */
  stopStrings: string[]
  /** the remaining fields (temperature, top_p, …), kept as they were */
  other: Record<string, unknown>
}

/** @throws SsrlError ERR_MODEL_FORMAT naming a field of the wrong type */
export function parseGenerationConfig(json: unknown): GenerationConfig {
  const reader = new ConfigReader(json, generationConfigName)
  const stops = reader.field('stop_strings') ?? []
  const stopStrings: unknown[] = Array.isArray(stops) ? stops : [stops]
  if (!stopStrings.every((stop) => typeof stop === 'string' && stop !== '')) {
    reader.refuse('stop_strings', 'a string or a list of strings')
  }
  const {
    bos_token_id: _b,
    eos_token_id: _e,
    pad_token_id: _p,
    stop_strings: _s,
    ...other
  } = json as Record<string, unknown>
  return {
    bosTokenId: reader.tokenIds('bos_token_id')[0],
    eosTokenIds: reader.tokenIds('eos_token_id'),
    padTokenId: reader.tokenIds('pad_token_id')[0],
    stopStrings: stopStrings as string[],
    other,
  }
}

/** The file's object; transformers stops at `stop_strings` when generate() is given the tokenizer. */
export function toGenerationConfigJson(config: GenerationConfig): Record<string, unknown> {
  const eos = config.eosTokenIds
  const json: Record<string, unknown> = { ...config.other }
  if (config.bosTokenId !== undefined) json.bos_token_id = config.bosTokenId
  if (eos.length > 0) json.eos_token_id = eos.length === 1 ? eos[0] : [...eos]
  if (config.padTokenId !== undefined) json.pad_token_id = config.padTokenId
  if (config.stopStrings.length > 0) json.stop_strings = [...config.stopStrings]
  return json
}

/** The folder's generation config; one without content where there is none. */
export async function readGenerationConfig(directory: string): Promise<GenerationConfig> {
  const text = await readIfThere(join(directory, generationConfigName))
  if (text === undefined) return { eosTokenIds: [], stopStrings: [], other: {} }
  return parseGenerationConfig(parseJson(text, generationConfigName))
}

export async function writeGenerationConfig(directory: string, config: GenerationConfig) {
  const text = JSON.stringify(toGenerationConfigJson(config), null, 2)
  await writeFile(join(directory, generationConfigName), `${text}\n`)
}

/** @throws SsrlError ERR_MODEL_FORMAT when the text is not JSON */
export function parseJson(text: string, name: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new SsrlError('ERR_MODEL_FORMAT', `${name} is not JSON: ${(cause as Error).message}`, { cause })
  }
}
