import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, symlink, writeFile } from 'node:fs/promises'
import { basename, dirname, isAbsolute, join, relative } from 'node:path'
import {
  getHFHubCachePath,
  getRepoFolderName,
  type ListFileEntry,
  listFiles,
  modelInfo,
} from '@huggingface/hub'
import { SsrlError } from '../errors.ts'
import { HubClient } from './hub-client.ts'
import { withLock } from './lock.ts'
import { type HubId, indexName, shardNames } from './model-files.ts'
import { tokenizerFileNames } from './tokenizer-files.ts'
import { type Digest, transferFile } from './transfer.ts'

export interface HubProgress {
  /** name of the file that is on its way */
  file: string
  /** bytes of all files so far, and in all */
  receivedBytes: number
  totalBytes: number
}

export interface HubOptions {
  /** branch, tag or commit; default main */
  revision?: string
  signal?: AbortSignal
  onProgress?: (progress: HubProgress) => void
  /** first wait before a request is repeated, in milliseconds; doubles each time */
  retryDelay?: number
}

/** A repository's files in the cache of huggingface_hub. */
export interface Snapshot {
  directory: string
  /** names of the model's files there */
  files: string[]
  /** commit */
  revision: string
}

const companions = ['config.json', 'generation_config.json', ...tokenizerFileNames]

/**
 * Brings a model's files (config, tokenizer, safetensors or one .gguf, nothing else) into the cache that
 * huggingface_hub and @huggingface/hub use, and says where they lie. HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE and
 * HF_HUB_OFFLINE are honoured. What is cached is not downloaded again; an interrupted transfer goes on where it stopped.
 * @throws SsrlError ERR_NETWORK when the hub can't be reached or refuses, or a file arrives damaged;
 * ERR_MODEL_FORMAT when the repository holds no weights that can be read
 */
export async function downloadModel(id: HubId, options: HubOptions = {}): Promise<Snapshot> {
  const revision = options.revision ?? 'main'
  const storage = join(getHFHubCachePath(), getRepoFolderName({ name: id.repository, type: 'model' }))
  const cached = await findCached(storage, revision, id)
  // a commit never changes: with all files there, nothing is left to ask the hub for
  if (cached?.revision === revision && cached.files.includes('tokenizer.json')) return cached
  if (isOffline()) return cached ?? refuseOffline(id, revision)
  const client = new HubClient({ ...options, maxAttempts: cached ? 2 : 5 })
  const listing = await list(client, id, revision, options.signal).catch((error: SsrlError) => error)
  if (listing instanceof Error) {
    const isUnreachable =
      listing instanceof SsrlError && listing.code === 'ERR_NETWORK' && !client.wasAnswered
    if (cached && isUnreachable) return cached
    throw listing
  }
  const download = new Download(client, id, storage, listing.commit, options)
  const files = await download.run(listing.entries)
  await writeReference(storage, revision, listing.commit)
  return { directory: download.directory, files, revision: listing.commit }
}

interface Listing {
  commit: string
  entries: ListFileEntry[]
}

async function list(client: HubClient, id: HubId, revision: string, signal?: AbortSignal): Promise<Listing> {
  const common = { hubUrl: client.endpoint, fetch: client.fetch }
  const fail = (cause: unknown): never => {
    signal?.throwIfAborted()
    if (cause instanceof SsrlError) throw cause
    const { statusCode, message } = cause as { statusCode?: number; message: string }
    const hint =
      statusCode === 401 || statusCode === 403 || statusCode === 404
        ? '. Check the name; if the repository is private or gated, set HF_TOKEN'
        : ''
    throw new SsrlError('ERR_NETWORK', `The hub refused ${id.repository} at ${revision}: ${message}${hint}`, {
      cause,
    })
  }
  try {
    const info = await modelInfo({ ...common, name: id.repository, revision, additionalFields: ['sha'] })
    const commit = info.sha
    if (!/^[0-9a-f]{40}$/.test(commit)) throw new Error(`${commit} is no commit`)
    const entries: ListFileEntry[] = []
    const repo = { type: 'model' as const, name: id.repository }
    const recursive = id.file?.includes('/') ?? false
    for await (const entry of listFiles({ ...common, repo, revision: commit, recursive })) {
      const isInside = !entry.path.split(/[/\\]/).includes('..') && !isAbsolute(entry.path)
      if (entry.type === 'file' && isInside) entries.push(entry)
    }
    return { commit, entries }
  } catch (cause) {
    return fail(cause)
  }
}

/** The transfer of one repository's files at one commit. */
class Download {
  readonly directory: string
  readonly #client: HubClient
  readonly #id: HubId
  readonly #storage: string
  readonly #commit: string
  readonly #options: HubOptions
  #receivedBytes = 0
  #totalBytes = 0

  constructor(client: HubClient, id: HubId, storage: string, commit: string, options: HubOptions) {
    this.#client = client
    this.#id = id
    this.#storage = storage
    this.#commit = commit
    this.#options = options
    this.directory = join(storage, 'snapshots', commit)
  }

  async run(entries: readonly ListFileEntry[]): Promise<string[]> {
    const byName = new Map(entries.map((entry) => [entry.path, entry]))
    const weights = await this.#weightFiles(byName)
    const names = [...companions.filter((name) => byName.has(name)), ...weights]
    const wanted = names.map((name) => byName.get(name) ?? refuseMissing(this.#id, name))
    this.#totalBytes = wanted.reduce((sum, entry) => sum + sizeOf(entry), 0)
    for (const entry of wanted) await this.#fetch(entry)
    return names
  }

  async #weightFiles(byName: Map<string, ListFileEntry>): Promise<string[]> {
    const { file } = this.#id
    if (file !== undefined) return [file]
    const index = byName.get(indexName)
    if (index) {
      await this.#fetch(index)
      const shards = shardNames(await readFile(join(this.directory, indexName), 'utf8'), indexName)
      return [indexName, ...shards]
    }
    if (byName.has('model.safetensors')) return ['model.safetensors']
    const ggufs = [...byName.keys()].filter((name) => name.endsWith('.gguf'))
    if (ggufs.length === 1) return ggufs
    throw new SsrlError(
      'ERR_MODEL_FORMAT',
      ggufs.length > 1
        ? `${this.#id.repository} has several .gguf files: say which, as ${this.#id.repository}:${ggufs[0]} (there are ${ggufs.join(', ')})`
        : `${this.#id.repository} holds neither model.safetensors nor a .gguf file`,
    )
  }

  /** One file into `blobs`, and a link to it from the snapshot. */
  async #fetch(entry: ListFileEntry) {
    const digest = digestOf(entry)
    const link = join(this.directory, entry.path)
    const blob = join(this.#storage, 'blobs', digest.value)
    const progress = (bytes: number) => {
      const receivedBytes = this.#receivedBytes + bytes
      // the index of shards comes before the sizes are known
      if (this.#totalBytes === 0) return
      this.#options.onProgress?.({ file: entry.path, receivedBytes, totalBytes: this.#totalBytes })
    }
    if (!existsSync(blob) && !existsSync(link)) {
      await mkdir(dirname(blob), { recursive: true })
      const { signal } = this.#options
      const url = `${this.#client.endpoint}/${this.#id.repository}/resolve/${this.#commit}/${entry.path}`
      const target = { path: blob, size: sizeOf(entry), digest, name: entry.path }
      await withLock(`${blob}.lock`, signal, async () => {
        if (existsSync(blob)) return
        await transferFile(this.#client, url, target, { signal, onProgress: progress })
      })
    }
    await linkBlob(blob, link)
    this.#receivedBytes += this.#totalBytes > 0 ? sizeOf(entry) : 0
    progress(0)
  }
}

function sizeOf(entry: ListFileEntry) {
  return entry.lfs?.size ?? entry.size
}

/** Large files carry their sha256; small ones are known by their git object id, a sha1 over a header and the content. */
function digestOf(entry: ListFileEntry): Digest {
  const sha256 = entry.lfs?.oid
  if (sha256 !== undefined && /^[0-9a-f]{64}$/.test(sha256)) return { algorithm: 'sha256', value: sha256 }
  const oid = entry.oid ?? ''
  if (/^[0-9a-f]{40}$/.test(oid)) return { algorithm: 'git-sha1', value: oid }
  throw new SsrlError('ERR_NETWORK', `The hub lists ${entry.path} without a checksum`)
}

async function linkBlob(blob: string, link: string) {
  if (existsSync(link)) return
  await mkdir(dirname(link), { recursive: true })
  try {
    await symlink(relative(dirname(link), blob), link)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'EEXIST') return
    // file systems and Windows accounts without links keep the file itself in the snapshot, as huggingface_hub does
    if (code === 'EPERM' || code === 'ENOSYS' || code === 'EACCES') await rename(blob, link)
    else throw new SsrlError('ERR_IO', `Can't link ${link}: ${(cause as Error).message}`, { cause })
  }
}

async function writeReference(storage: string, revision: string, commit: string) {
  if (revision === commit) return
  const path = referencePath(storage, revision)
  await mkdir(dirname(path), { recursive: true })
  await writeFile(path, commit)
}

function referencePath(storage: string, revision: string) {
  return join(storage, 'refs', ...revision.split('/').filter((part) => part !== '..' && part !== ''))
}

/** The snapshot of a revision, if all files that the model needs are there. */
async function findCached(storage: string, revision: string, id: HubId): Promise<Snapshot | null> {
  const read = (path: string) => readFile(path, 'utf8').catch(() => null)
  const isCommit = /^[0-9a-f]{40}$/.test(revision)
  const commit = isCommit ? revision : (await read(referencePath(storage, revision)))?.trim()
  if (!commit) return null
  const directory = join(storage, 'snapshots', commit)
  const has = (name: string) => existsSync(join(directory, name))
  const files = companions.filter(has)
  const snapshot = (weights: string[]) => ({ directory, files: [...files, ...weights], revision: commit })
  if (id.file !== undefined) return has(id.file) ? snapshot([id.file]) : null
  const index = await read(join(directory, indexName))
  if (index === null && has('model.safetensors'))
    return has('config.json') ? snapshot(['model.safetensors']) : null
  if (index === null) {
    const ggufs = (await readdir(directory).catch(() => [])).filter((name) => name.endsWith('.gguf'))
    return ggufs.length === 1 ? snapshot(ggufs) : null
  }
  const shards = shardNames(index, indexName)
  return shards.every(has) ? snapshot([indexName, ...shards]) : null
}

function isOffline() {
  return ['1', 'true', 'yes', 'on'].includes((process.env.HF_HUB_OFFLINE ?? '').toLowerCase())
}

function refuseOffline(id: HubId, revision: string): never {
  throw new SsrlError(
    'ERR_NETWORK',
    `${id.repository} at ${revision} is not in the cache (${getHFHubCachePath()}), and HF_HUB_OFFLINE forbids to download it`,
  )
}

function refuseMissing(id: HubId, name: string): never {
  throw new SsrlError('ERR_MODEL_FORMAT', `${id.repository} has no file ${basename(name)}`)
}
