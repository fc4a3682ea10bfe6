import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { SsrlError } from '../errors.ts'

/** What a checkpoint file is known by. */
interface FileMark {
  bytes: number
  sha256: string
}

interface Manifest<State> {
  format: 1
  state: State
  files: Record<string, FileMark>
}

const MANIFEST = 'state.json'

/** Writes one part of a checkpoint at the path that it is given. */
export type PartWriter = (target: string) => Promise<void>

/**
 * Writes a checkpoint as a whole or not at all: into a temporary folder beside the target, every file flushed to disk,
 * then renamed. An older checkpoint of the same name stays until the new one is complete.
 *
 * @param parts name of a file or folder inside the checkpoint → what writes it
 * @throws SsrlError `ERR_CHECKPOINT`, with everything that was there before still in place
 */
export async function writeCheckpoint<State>(
  directory: string,
  parts: Record<string, PartWriter>,
  state: State,
): Promise<void> {
  const parent = path.dirname(path.resolve(directory))
  const temporary = path.join(parent, `.${path.basename(directory)}.${process.pid}.tmp`)
  try {
    await rm(temporary, { recursive: true, force: true })
    await mkdir(temporary, { recursive: true })
    for (const [name, write] of Object.entries(parts)) await write(path.join(temporary, name))
    const files: Record<string, FileMark> = {}
    for (const name of await filesBelow(temporary)) {
      await flush(path.join(temporary, name))
      files[name] = await mark(path.join(temporary, name))
    }
    const manifest: Manifest<State> = { format: 1, state, files }
    await writeFile(path.join(temporary, MANIFEST), JSON.stringify(manifest, null, 2), { flush: true })
    await flush(temporary)
    await replaceFolder(temporary, directory)
    await flush(parent)
  } catch (cause) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {})
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new SsrlError(
      'ERR_CHECKPOINT',
      `Could not write the checkpoint ${directory}: ${reason}. What was saved before is untouched; free space or ` +
        'choose another folder, and save again',
      { cause },
    )
  }
}

/** Renames over an existing folder; the old one is moved aside first, since rename can't replace a full folder. */
async function replaceFolder(from: string, to: string): Promise<void> {
  const aside = `${from}.old`
  await rm(aside, { recursive: true, force: true })
  const hadOld = await rename(to, aside).then(
    () => true,
    () => false,
  )
  try {
    await rename(from, to)
  } catch (error) {
    if (hadOld) await rename(aside, to)
    throw error
  }
  await rm(aside, { recursive: true, force: true })
}

/**
 * Reads a checkpoint's state after checking size and SHA-256 of every file.
 *
 * @throws SsrlError `ERR_CHECKPOINT` naming what is missing or damaged
 */
export async function readCheckpoint<State>(directory: string): Promise<State> {
  const manifest = await readManifest<State>(directory)
  for (const [name, { bytes, sha256 }] of Object.entries(manifest.files)) {
    const file = path.join(directory, name)
    const found = await mark(file).catch(() => null)
    if (found === null) throw damaged(directory, `${name} is missing`)
    if (found.bytes !== bytes)
      throw damaged(directory, `${name} has ${found.bytes} bytes instead of ${bytes}`)
    if (found.sha256 !== sha256) throw damaged(directory, `${name} does not match its checksum`)
  }
  return manifest.state
}

async function readManifest<State>(directory: string): Promise<Manifest<State>> {
  const file = path.join(directory, MANIFEST)
  let content: string
  try {
    content = await readFile(file, 'utf8')
  } catch (cause) {
    throw new SsrlError(
      'ERR_CHECKPOINT',
      `Expected a checkpoint in ${directory}, but there is no ${MANIFEST} to read`,
      {
        cause,
      },
    )
  }
  try {
    const manifest = JSON.parse(content) as Manifest<State>
    if (manifest.format !== 1) throw new Error(`its format is ${manifest.format}, this version reads 1`)
    if (typeof manifest.files !== 'object' || typeof manifest.state !== 'object')
      throw new Error('fields are missing')
    return manifest
  } catch (cause) {
    throw damaged(directory, `${MANIFEST} can't be read (${(cause as Error).message})`)
  }
}

function damaged(directory: string, what: string): SsrlError {
  return new SsrlError(
    'ERR_CHECKPOINT',
    `The checkpoint ${directory} is damaged: ${what}. Resume from another one of the run's checkpoints folder`,
  )
}

async function filesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(directory, path.join(entry.parentPath, entry.name)))
    .sort()
}

async function flush(target: string): Promise<void> {
  const handle = await open(target, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function mark(file: string): Promise<FileMark> {
  const { size } = await stat(file)
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer)
  return { bytes: size, sha256: hash.digest('hex') }
}

/** The checkpoints of a run: `step-000010`, …; the last few are kept, and the best one. */
export class CheckpointFolder {
  readonly directory: string

  constructor(directory: string) {
    this.directory = directory
  }

  pathOf(step: number): string {
    return path.join(this.directory, `step-${String(step).padStart(6, '0')}`)
  }

  /** Steps that have one, ascending. */
  async steps(): Promise<number[]> {
    const names = await readdir(this.directory).catch(() => [] as string[])
    const steps = names.flatMap((name) => /^step-(\d+)$/.exec(name)?.[1] ?? []).map(Number)
    return steps.sort((a, b) => a - b)
  }

  /** Points the link `best` at a step's checkpoint. */
  async markBest(step: number): Promise<void> {
    const link = path.join(this.directory, 'best')
    const temporary = `${link}.${process.pid}.tmp`
    await rm(temporary, { force: true })
    await symlink(path.basename(this.pathOf(step)), temporary)
    await rename(temporary, link)
  }

  /** Removes all but the last `keep` and the best. */
  async prune(keep: number, best: number | null): Promise<void> {
    const steps = await this.steps()
    for (const step of steps.slice(0, -keep)) {
      if (step !== best) await rm(this.pathOf(step), { recursive: true, force: true })
    }
  }
}

/** Accepts a checkpoint, or a run's folder (its newest checkpoint). */
export async function findCheckpoint(directory: string): Promise<string> {
  if (await stat(path.join(directory, MANIFEST)).catch(() => null)) return directory
  const folder = new CheckpointFolder(path.join(directory, 'checkpoints'))
  const last = (await folder.steps()).at(-1)
  if (last !== undefined) return folder.pathOf(last)
  throw new SsrlError(
    'ERR_CHECKPOINT',
    `Expected a checkpoint or a run's folder with checkpoints, but found none in ${directory}`,
  )
}
