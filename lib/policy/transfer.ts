import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises'
import { SsrlError } from '../errors.ts'
import { type HubClient, isTemporary, unreachable } from './hub-client.ts'

/** What a file's content must hash to. */
export interface Digest {
  algorithm: 'sha256' | 'git-sha1'
  /** lower-case hex */
  value: string
}

export interface TransferTarget {
  /** final path; bytes gather in `path.incomplete` first */
  path: string
  size: number
  digest: Digest
  /** for messages */
  name: string
}

export interface TransferOptions {
  signal?: AbortSignal
  onProgress?: (receivedBytes: number) => void
}

/**
 * Downloads a file: goes on from `path.incomplete` if there is one, repeats lost connections from where they broke, checks
 * size and digest, and only then gives the file its name. An abort or an error of the network leaves `.incomplete`.
 * @throws SsrlError ERR_NETWORK; with a wrong digest the bytes are removed, so that the next try starts afresh
 */
export async function transferFile(
  client: HubClient,
  url: string,
  target: TransferTarget,
  options: TransferOptions,
) {
  const partial = `${target.path}.incomplete`
  const isResumed = await exists(partial)
  await receiveAll(client, url, { ...target, path: partial }, options)
  try {
    await check(partial, target)
  } catch (error) {
    if (!isResumed) throw error
    // what an earlier process left was of another file or was damaged
    await receiveAll(client, url, { ...target, path: partial }, options)
    await check(partial, target)
  }
  await rename(partial, target.path)
}

/** Connection after connection, until the file is as long as it should be. */
async function receiveAll(client: HubClient, url: string, target: TransferTarget, options: TransferOptions) {
  for (let attempt = 0; ; ) {
    const before = await sizeOf(target.path)
    if (before >= target.size && (await exists(target.path))) return
    try {
      await receive(client, url, target, options)
      if ((await sizeOf(target.path)) >= target.size) return
      throw new Error('the connection ended early')
    } catch (cause) {
      options.signal?.throwIfAborted()
      const isFinal = cause instanceof SsrlError
      // a connection that brought something is worth as many attempts as a new one
      attempt = (await sizeOf(target.path)) > before ? 1 : attempt + 1
      if (isFinal || attempt >= client.maxAttempts)
        throw isFinal ? cause : unreachable(client.endpoint, cause)
      await client.wait(attempt, cause instanceof TemporaryError ? cause.response : undefined)
    }
  }
}

/** An answer that may be another one a little later. */
class TemporaryError extends Error {
  readonly response: Response

  constructor(response: Response) {
    super(`status ${response.status}`)
    this.response = response
  }
}

/** One connection's worth of bytes. */
async function receive(client: HubClient, url: string, target: TransferTarget, options: TransferOptions) {
  const have = await sizeOf(target.path)
  // compressed, the offsets would be those of other bytes
  const headers: Record<string, string> = { 'accept-encoding': 'identity' }
  if (have > 0) headers.range = `bytes=${have}-`
  const response = await client.request(url, { headers })
  const start = startOf(response, have, target)
  const file = await openAt(target, start)
  try {
    await append(file, response, start, target, options)
    await file.sync()
  } finally {
    await file.close()
  }
}

/** The offset of an answer's first byte: servers may ignore a range and send the whole file. */
function startOf(response: Response, have: number, target: TransferTarget): number {
  if (response.status === 200) return 0
  if (response.status === 206) {
    const range = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')
    if (range && Number(range[1]) === have) return have
    throw new SsrlError('ERR_NETWORK', `The server answered with the wrong part of ${target.name}`)
  }
  void response.body?.cancel()
  if (isTemporary(response.status)) throw new TemporaryError(response)
  throw new SsrlError(
    'ERR_NETWORK',
    `Can't download ${target.name}: the server answered with status ${response.status}`,
  )
}

async function openAt(target: TransferTarget, start: number): Promise<FileHandle> {
  try {
    return await open(target.path, start === 0 ? 'w' : 'r+')
  } catch (cause) {
    throw new SsrlError('ERR_IO', `Can't write ${target.path}: ${(cause as Error).message}`, { cause })
  }
}

async function append(
  file: FileHandle,
  response: Response,
  start: number,
  target: TransferTarget,
  options: TransferOptions,
) {
  let position = start
  for await (const chunk of response.body ?? []) {
    if (position + chunk.length > target.size) {
      await file.truncate(0)
      throw new SsrlError(
        'ERR_NETWORK',
        `The server sent more than the ${target.size} bytes of ${target.name}`,
      )
    }
    await write(file, chunk, position, target)
    position += chunk.length
    options.onProgress?.(position)
    options.signal?.throwIfAborted()
  }
}

async function write(file: FileHandle, chunk: Uint8Array, position: number, target: TransferTarget) {
  try {
    await file.write(chunk, 0, chunk.length, position)
  } catch (cause) {
    throw new SsrlError('ERR_IO', `Can't write ${target.path}: ${(cause as Error).message}`, { cause })
  }
}

async function check(path: string, target: TransferTarget) {
  const size = await sizeOf(path)
  const found = size === target.size ? await digestOf(path, size, target.digest.algorithm) : `${size} bytes`
  if (found === target.digest.value) return
  await rm(path, { force: true })
  throw new SsrlError(
    'ERR_NETWORK',
    `${target.name} arrived damaged: expected ${target.size} bytes with ${target.digest.algorithm} ${target.digest.value} but received ${found}. It was removed; try again`,
  )
}

async function digestOf(path: string, size: number, algorithm: Digest['algorithm']): Promise<string> {
  const hash = createHash(algorithm === 'sha256' ? 'sha256' : 'sha1')
  // git hashes a blob together with this header
  if (algorithm === 'git-sha1') hash.update(`blob ${size}\0`)
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk)
  return hash.digest('hex')
}

async function sizeOf(path: string): Promise<number> {
  return (await stat(path).catch(() => null))?.size ?? 0
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null)) !== null
}
