import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SsrlError } from '../errors.ts'

/** The files of a Hugging Face folder that belong to its tokenizer; all are optional but tokenizer.json. */
export const tokenizerFileNames = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'chat_template.json',
] as const

/** Text of each file that is there. */
export type TokenizerFiles = Map<string, string>

/** Reads the tokenizer's files of a folder, or null when it has no tokenizer.json. */
export async function readTokenizerFiles(directory: string): Promise<TokenizerFiles | null> {
  const files: TokenizerFiles = new Map()
  for (const name of tokenizerFileNames) {
    const text = await readIfThere(join(directory, name))
    if (text !== undefined) files.set(name, text)
  }
  return files.has('tokenizer.json') ? files : null
}

/** Writes the files as they were read, so that a saved policy's tokenizer is the one that it came with. */
export async function writeTokenizerFiles(directory: string, files: TokenizerFiles) {
  for (const [name, text] of files) await writeFile(join(directory, name), text)
}

/** @throws SsrlError ERR_TOKENIZER when the text is not a JSON object */
export function parseJsonObject(text: string, name: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new SsrlError('ERR_TOKENIZER', `${name} is not JSON: ${(cause as Error).message}`, { cause })
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new SsrlError('ERR_TOKENIZER', `Expected an object in ${name}`)
  }
  return value as Record<string, unknown>
}

/** The text of a file, or undefined where there is none. */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new SsrlError('ERR_IO', `Can't read ${path}: ${(cause as Error).message}`, { cause })
  }
}

/**
 * The chat template of a model's files: chat_template.jinja, chat_template.json, or the field of tokenizer_config.json,
 * which may be a list of named templates, of which `default` is taken.
 */
export function findChatTemplate(files: TokenizerFiles): string | null {
  const jinja = files.get('chat_template.jinja')
  if (jinja !== undefined) return jinja
  for (const name of ['chat_template.json', 'tokenizer_config.json']) {
    const text = files.get(name)
    const template =
      text === undefined ? null : readTemplateField(parseJsonObject(text, name).chat_template, name)
    if (template !== null) return template
  }
  return null
}

function readTemplateField(field: unknown, where: string): string | null {
  if (field === undefined || field === null) return null
  if (typeof field === 'string') return field
  if (Array.isArray(field)) {
    const entry = field.find((item) => item?.name === 'default')
    if (typeof entry?.template === 'string') return entry.template
  }
  throw new SsrlError(
    'ERR_TOKENIZER',
    `Expected a template, or a list with one named 'default', for chat_template in ${where}`,
  )
}
