import { createHash, randomBytes } from 'node:crypto'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { downloadModel, type HubProgress } from '../../lib/policy/hub.ts'
import { locatePolicy } from '../../lib/policy/locate.ts'
import { commit, type HubFile, HubServer } from '../helpers/hub-server.ts'

const weights = randomBytes(300_000)
const weightsDigest = createHash('sha256').update(weights).digest('hex')
const id = { repository: 'org/tiny' }
const fast = { retryDelay: 1 }

function repository(): Record<string, HubFile> {
  return {
    'README.md': { content: Buffer.from('# not needed') },
    'config.json': { content: Buffer.from('{"model_type":"llama"}') },
    'tokenizer.json': { content: Buffer.from('{}') },
    'pytorch_model.bin': { content: randomBytes(100), lfs: true },
    'model.safetensors': { content: weights, lfs: true },
  }
}

/** Runs with a hub and an empty cache; tests are serial, since both are found through the environment. */
async function withHub(
  files: Record<string, HubFile>,
  run: (server: HubServer, cache: string) => Promise<void>,
) {
  const server = await HubServer.start(files)
  const cache = mkdtempSync(join(tmpdir(), 'ssrl-hub-'))
  Object.assign(process.env, { HF_ENDPOINT: `${server.endpoint}/`, HF_HUB_CACHE: cache, HF_TOKEN: 'secret' })
  delete process.env.HF_HUB_OFFLINE
  try {
    await run(server, cache)
  } finally {
    server.stop()
    rmSync(cache, { recursive: true })
  }
}

const blobs = (cache: string) => join(cache, 'models--org--tiny', 'blobs')

test.serial(
  'a model is laid out as huggingface_hub does: refs, snapshots of links, blobs by digest',
  async (t) => {
    await withHub(repository(), async (server, cache) => {
      const snapshot = await downloadModel(id, fast)
      const root = join(cache, 'models--org--tiny')
      t.is(snapshot.directory, join(root, 'snapshots', commit))
      t.is(snapshot.revision, commit)
      t.is(readFileSync(join(root, 'refs', 'main'), 'utf8'), commit)
      const link = join(snapshot.directory, 'model.safetensors')
      t.true(lstatSync(link).isSymbolicLink())
      t.is(readlinkSync(link), join('..', '..', 'blobs', weightsDigest))
      t.deepEqual(readFileSync(link), weights)
      t.deepEqual(readdirSync(snapshot.directory).sort(), [
        'config.json',
        'model.safetensors',
        'tokenizer.json',
      ])
      t.deepEqual(server.downloads('README.md'), [])
      t.deepEqual(server.downloads('pytorch_model.bin'), [])
    })
  },
)

test.serial(
  'what is cached is not downloaded again, and a cached commit asks the hub for nothing',
  async (t) => {
    await withHub(repository(), async (server) => {
      await downloadModel(id, fast)
      server.requests.length = 0
      await downloadModel(id, fast)
      t.deepEqual(
        server.requests.filter(({ path }) => path.includes('/resolve/')),
        [],
      )
      t.true(server.requests.length > 0)
      server.requests.length = 0
      await downloadModel(id, { ...fast, revision: commit })
      t.deepEqual(server.requests, [])
    })
  },
)

test.serial('the token goes to the hub only, never to the host that it redirects to', async (t) => {
  await withHub(repository(), async (server) => {
    await downloadModel(id, fast)
    const hub = server.requests.filter(({ host }) => host === 'hub')
    const cdn = server.requests.filter(({ host }) => host === 'cdn')
    t.true(hub.every(({ authorization }) => authorization === 'Bearer secret'))
    t.true(cdn.length > 0)
    t.true(cdn.every(({ authorization }) => authorization === undefined))
  })
})

test.serial('a listing of several pages is read to its end', async (t) => {
  await withHub(repository(), async (server) => {
    server.pageSize = 2
    t.true((await downloadModel(id, fast)).files.includes('model.safetensors'))
  })
})

test.serial('a connection that is cut goes on from where it broke', async (t) => {
  await withHub({ 'model.safetensors': { content: weights, lfs: true } }, async (server) => {
    server.faults.push({ cutAfter: 100_000 })
    const { directory } = await downloadModel(id, fast)
    t.deepEqual(readFileSync(join(directory, 'model.safetensors')), weights)
    const ranges = server.requests.filter(({ host }) => host === 'cdn').map(({ range }) => range)
    t.is(ranges.length, 2)
    t.is(ranges[0], undefined)
    t.regex(ranges[1] ?? '', /^bytes=[1-9]\d*-$/)
  })
})

test.serial('a server that ignores ranges is read from the start', async (t) => {
  await withHub({ 'model.safetensors': { content: weights, lfs: true } }, async (server) => {
    server.ignoresRange = true
    server.faults.push({ cutAfter: 100_000 })
    const { directory } = await downloadModel(id, fast)
    t.deepEqual(readFileSync(join(directory, 'model.safetensors')), weights)
  })
})

test.serial('429 and 5xx are tried again, and Retry-After is obeyed', async (t) => {
  await withHub({ 'model.safetensors': { content: weights, lfs: true } }, async (server) => {
    server.faults.push({ status: 503 }, { status: 429, retryAfter: '1' })
    const start = performance.now()
    await downloadModel(id, fast)
    t.is(server.requests.filter(({ host }) => host === 'cdn').length, 3)
    t.true(performance.now() - start >= 990)
  })
})

test.serial('a server that keeps failing is ERR_NETWORK', async (t) => {
  await withHub({ 'model.safetensors': { content: weights, lfs: true } }, async (server) => {
    for (let i = 0; i < 5; i++) server.faults.push({ status: 500 })
    const error = await t.throwsAsync(downloadModel(id, fast), { code: 'ERR_NETWORK' })
    t.regex(error.message, /status 500/)
    t.is(server.requests.filter(({ host }) => host === 'cdn').length, 5)
  })
})

for (const lfs of [true, false]) {
  test.serial(
    `a file with another ${lfs ? 'sha256' : 'git digest'} than listed is ERR_NETWORK and removed`,
    async (t) => {
      const claimedDigest = lfs ? 'f'.repeat(64) : 'f'.repeat(40)
      await withHub({ 'model.safetensors': { content: weights, lfs, claimedDigest } }, async (_, cache) => {
        const error = await t.throwsAsync(downloadModel(id, fast), { code: 'ERR_NETWORK' })
        t.regex(error.message, /model\.safetensors arrived damaged.*try again/)
        t.deepEqual(readdirSync(blobs(cache)), [])
      })
    },
  )
}

test.serial(
  'an abort midway rejects with its reason and leaves the bytes, with which the next call goes on',
  async (t) => {
    await withHub({ 'model.safetensors': { content: weights, lfs: true } }, async (server, cache) => {
      server.faults.push({ stallAfter: 100_000 })
      const controller = new AbortController()
      const reason = new Error('enough')
      const onProgress = ({ receivedBytes }: HubProgress) => {
        if (receivedBytes >= 50_000) controller.abort(reason)
      }
      const error = await t.throwsAsync(downloadModel(id, { ...fast, signal: controller.signal, onProgress }))
      t.is(error, reason)
      const partial = join(blobs(cache), `${weightsDigest}.incomplete`)
      const kept = readFileSync(partial)
      t.true(kept.length >= 50_000)
      const { directory } = await downloadModel(id, fast)
      t.deepEqual(readFileSync(join(directory, 'model.safetensors')), weights)
      t.is(server.requests.at(-1)!.range, `bytes=${kept.length}-`)
      t.false(existsSync(partial))
    })
  },
)

test.serial('two downloads at once transfer each file once', async (t) => {
  await withHub(repository(), async (server, cache) => {
    const [one, two] = await Promise.all([downloadModel(id, fast), downloadModel(id, fast)])
    t.deepEqual(one, two)
    const transfers = server.requests.filter(({ host, path }) => host === 'cdn' || path.endsWith('.json'))
    t.is(transfers.length, new Set(transfers.map(({ path }) => path)).size)
    t.deepEqual(
      readdirSync(blobs(cache)).filter((name) => name.endsWith('.lock')),
      [],
    )
  })
})

test.serial('a lock that a dead process left is taken over; waiting for one can be aborted', async (t) => {
  await withHub({ 'model.safetensors': { content: weights, lfs: true } }, async (_, cache) => {
    mkdirSync(blobs(cache), { recursive: true })
    const lock = join(blobs(cache), `${weightsDigest}.lock`)
    writeFileSync(lock, '')
    const reason = new Error('enough')
    const controller = new AbortController()
    setTimeout(() => controller.abort(reason), 300)
    t.is(await t.throwsAsync(downloadModel(id, { ...fast, signal: controller.signal })), reason)
    const old = new Date(Date.now() - 60_000)
    utimesSync(lock, old, old)
    await t.notThrowsAsync(downloadModel(id, fast))
    t.false(existsSync(lock))
  })
})

test.serial(
  'leftovers that are not of this file are found by the digest, and the file is fetched afresh',
  async (t) => {
    await withHub({ 'model.safetensors': { content: weights, lfs: true } }, async (_, cache) => {
      await downloadModel(id, fast)
      rmSync(join(cache, 'models--org--tiny', 'snapshots'), { recursive: true })
      rmSync(join(blobs(cache), weightsDigest))
      writeFileSync(join(blobs(cache), `${weightsDigest}.incomplete`), randomBytes(1000))
      const { directory } = await downloadModel(id, fast)
      t.deepEqual(readFileSync(join(directory, 'model.safetensors')), weights)
    })
  },
)

test.serial('progress counts the bytes of all files and ends at the total', async (t) => {
  await withHub(repository(), async () => {
    const seen: HubProgress[] = []
    await downloadModel(id, { ...fast, onProgress: (progress) => seen.push(progress) })
    const last = seen.at(-1)!
    t.is(last.receivedBytes, last.totalBytes)
    t.true(seen.every(({ receivedBytes }, i) => i === 0 || receivedBytes >= seen[i - 1]!.receivedBytes))
  })
})

test.serial('shards are found through their index', async (t) => {
  const index = { weight_map: { 'a.weight': 'model-1.safetensors', 'b.weight': 'model-2.safetensors' } }
  const files = {
    'config.json': { content: Buffer.from('{}') },
    'model.safetensors.index.json': { content: Buffer.from(JSON.stringify(index)) },
    'model-1.safetensors': { content: randomBytes(10), lfs: true },
    'model-2.safetensors': { content: randomBytes(20), lfs: true },
    'model-3.safetensors': { content: randomBytes(20), lfs: true },
  }
  await withHub(files, async () => {
    const location = await locatePolicy('org/tiny', fast)
    const names = location.weightFiles.map((path) => path.slice(location.directory.length + 1))
    t.deepEqual(names, ['model-1.safetensors', 'model-2.safetensors'])
    t.is(location.revision, commit)
  })
})

test.serial('an index that names a file outside its folder is ERR_MODEL_FORMAT', async (t) => {
  const index = { weight_map: { 'a.weight': '../../evil.safetensors' } }
  const files = { 'model.safetensors.index.json': { content: Buffer.from(JSON.stringify(index)) } }
  await withHub(files, async () => {
    const error = await t.throwsAsync(downloadModel(id, fast), { code: 'ERR_MODEL_FORMAT' })
    t.regex(error.message, /evil/)
  })
})

test.serial('of several .gguf files one must be named', async (t) => {
  const gguf = (content: string): HubFile => ({ content: Buffer.from(content), lfs: true })
  await withHub({ 'a-q8.gguf': gguf('eight'), 'a-q4.gguf': gguf('four') }, async () => {
    const error = await t.throwsAsync(locatePolicy('org/tiny', fast), { code: 'ERR_MODEL_FORMAT' })
    t.regex(error.message, /org\/tiny:a-q8\.gguf/)
    const location = await locatePolicy('org/tiny:a-q4.gguf', fast)
    t.is(location.format, 'gguf')
    t.is(readFileSync(location.weightFiles[0]!, 'utf8'), 'four')
  })
})

test.serial('a repository that does not exist is ERR_NETWORK with what to check', async (t) => {
  await withHub({}, async () => {
    const error = await t.throwsAsync(downloadModel({ repository: 'org/other' }, fast), {
      code: 'ERR_NETWORK',
    })
    t.regex(error.message, /org\/other.*HF_TOKEN/)
  })
})

test.serial('a repository without readable weights is ERR_MODEL_FORMAT', async (t) => {
  await withHub({ 'pytorch_model.bin': { content: randomBytes(10), lfs: true } }, async () => {
    await t.throwsAsync(downloadModel(id, fast), { code: 'ERR_MODEL_FORMAT' })
  })
})

test.serial('without a network the cache serves; with nothing cached it is ERR_NETWORK', async (t) => {
  await withHub(repository(), async (server) => {
    await t.notThrowsAsync(downloadModel(id, fast))
    server.stop()
    t.is((await downloadModel(id, fast)).revision, commit)
    const error = await t.throwsAsync(downloadModel({ repository: 'org/other' }, fast), {
      code: 'ERR_NETWORK',
    })
    t.regex(error.message, /Can't reach http/)
  })
})

test.serial('HF_HUB_OFFLINE sends no request at all', async (t) => {
  await withHub(repository(), async (server) => {
    process.env.HF_HUB_OFFLINE = '1'
    const error = await t.throwsAsync(downloadModel(id, fast), { code: 'ERR_NETWORK' })
    t.regex(error.message, /HF_HUB_OFFLINE/)
    t.deepEqual(server.requests, [])
    delete process.env.HF_HUB_OFFLINE
    await downloadModel(id, fast)
    process.env.HF_HUB_OFFLINE = '1'
    server.requests.length = 0
    t.is((await downloadModel(id, fast)).revision, commit)
    t.deepEqual(server.requests, [])
  })
})
