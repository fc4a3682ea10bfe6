import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { SsrlError } from '../errors.ts'
import { JsonlWriter } from '../logging/jsonl.ts'
import { CheckpointFolder } from './checkpoint.ts'

/** Names inside a run's folder. */
export const runFiles = {
  config: 'config.json',
  steps: 'steps.jsonl',
  trajectories: 'trajectories.jsonl',
  checkpoints: 'checkpoints',
  policy: 'policy',
} as const

/** How far a run is: the last step that is learnt, and the last that each file has. */
export interface StepsDone {
  learnt: number
  steps: number
  trajectories: number
}

/** The folder that a run writes into: settings, records, trajectories, checkpoints and the final policy. */
export class RunFolder {
  readonly directory: string
  readonly steps: JsonlWriter
  readonly trajectories: JsonlWriter
  readonly checkpoints: CheckpointFolder

  private constructor(directory: string) {
    this.directory = directory
    this.steps = new JsonlWriter(path.join(directory, runFiles.steps))
    this.trajectories = new JsonlWriter(path.join(directory, runFiles.trajectories))
    this.checkpoints = new CheckpointFolder(path.join(directory, runFiles.checkpoints))
  }

  /** The final policy's folder. */
  get policy(): string {
    return path.join(this.directory, runFiles.policy)
  }

  /**
   * A folder for a new run (no step `learnt`) or one that goes on: lines about later steps, which a crash may have left,
   * are removed, so that the files read as if the run had never stopped.
   *
   * @throws SsrlError `ERR_IO` when it can't be made, `ERR_INVALID_CONFIG` when a new run would mix with an old one
   */
  static async open(directory: string, settings: object, done: StepsDone): Promise<RunFolder> {
    const folder = new RunFolder(directory)
    try {
      await mkdir(folder.checkpoints.directory, { recursive: true })
      if (done.learnt === 0) await requireEmpty(folder.steps.path, directory)
      await dropLaterSteps(folder.steps.path, done.steps)
      await dropLaterSteps(folder.trajectories.path, done.trajectories)
      await writeAtomically(path.join(directory, runFiles.config), `${JSON.stringify(settings, null, 2)}\n`)
    } catch (cause) {
      if (cause instanceof SsrlError) throw cause
      const reason = (cause as Error).message
      throw new SsrlError('ERR_IO', `Could not prepare the output folder ${directory}: ${reason}`, { cause })
    }
    return folder
  }
}

async function requireEmpty(file: string, directory: string): Promise<void> {
  const content = await readFile(file, 'utf8').catch(() => '')
  if (content === '') return
  throw new SsrlError(
    'ERR_INVALID_CONFIG',
    `The output folder ${directory} holds another run's records: resume that run, or choose a new folder`,
  )
}

async function dropLaterSteps(file: string, lastStep: number): Promise<void> {
  const content = await readFile(file, 'utf8').catch(() => null)
  if (content === null) return
  const kept = content.split('\n').filter((line) => isOfStep(line, lastStep))
  await writeAtomically(file, kept.map((line) => `${line}\n`).join(''))
}

function isOfStep(line: string, lastStep: number): boolean {
  try {
    return (JSON.parse(line) as { step: number }).step <= lastStep
  } catch {
    return false
  }
}

/** Replaces a file as a whole: readers see the old content or the new. */
export async function writeAtomically(file: string, content: string): Promise<void> {
  const temporary = `${file}.${process.pid}.tmp`
  await writeFile(temporary, content, { flush: true })
  await rename(temporary, file)
}
