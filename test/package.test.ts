import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { execa } from 'execa'

interface PackResult {
  filename: string
  files: { path: string }[]
}

let folder: string
let packed: PackResult

test.before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'ssrl-package-'))
  const { stdout } = await execa('npm', ['pack', '--json', '--pack-destination', folder])
  packed = (JSON.parse(stdout.slice(stdout.indexOf('['))) as PackResult[])[0]!
})

test.after.always(() => rm(folder, { recursive: true, force: true }))

test('the tarball holds what is needed to build and run, and nothing else', (t) => {
  const files = packed.files.map((file) => file.path)
  for (const needed of [
    'dist/index.js',
    'dist/index.d.ts',
    'dist/cli/main.js',
    'native/addon/addon.cc',
    'CMakeLists.txt',
    'scripts/install.mjs',
    'scripts/setup.sh',
    'LICENSE',
  ]) {
    t.true(files.includes(needed), needed)
  }
  const allowed =
    /^(assets|dist|native)\/|^(CMakeLists\.txt|LICENSE|README\.md|package\.json|scripts\/(install\.mjs|setup\.sh))$/
  t.deepEqual(
    files.filter((file) => !allowed.test(file)),
    [],
  )
})

/** Installs the tarball in an empty folder; null when the dependencies can't be had. */
async function install(t: ExecutionContext): Promise<string | null> {
  const app = path.join(folder, 'app')
  await mkdir(app)
  await writeFile(
    path.join(app, 'package.json'),
    JSON.stringify({ name: 'app', version: '1.0.0', private: true }),
  )
  const result = await execa(
    'npm',
    [
      'install',
      '--prefer-offline',
      '--no-audit',
      '--no-fund',
      '--fetch-retries=1',
      // better-sqlite3 may take minutes to compile, and all but the local index goes without it.
      '--omit=optional',
      path.join(folder, packed.filename),
    ],
    // The CUDA library takes minutes to compile, and the repository's own build tries it.
    { cwd: app, reject: false, all: true, env: { SSRL_SKIP_CUDA: '1' } },
  )
  if (result.exitCode === 0) return app
  if (!/ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ETIMEDOUT|ENOTCACHED|ECONNRESET/.test(result.all)) t.fail(result.all)
  else t.log('not installed, since the npm registry cannot be reached')
  return null
}

/** Saves a policy with random weights, by nothing but what the package exports and carries. */
const tinyPolicyScript = `
  import { readFile } from 'node:fs/promises'
  import { Policy, Tokenizer } from 'ssrl'
  const tokenizer = new Tokenizer(new Map([
    ['tokenizer.json', await readFile('node_modules/ssrl/assets/quickstart-tokenizer.json', 'utf8')],
  ]))
  const policy = await Policy.initialize({
    architecture: 'LlamaForCausalLM', hiddenSize: 32, intermediateSize: 48, numLayers: 2, numHeads: 4, numKvHeads: 2,
    headDim: 8, vocabSize: tokenizer.vocabSize, maxPositions: 256, rmsNormEps: 1e-5, rope: { theta: 10000, scaling: null },
    qkvBias: false, outputBias: false, mlpBias: false, qkNorm: false, tieWordEmbeddings: true, eosTokenIds: [0],
    initializerRange: 0.02,
  }, { tokenizer, seed: 1, dtype: 'f32' })
  await policy.save('tiny')
  policy.dispose()`

test('installed elsewhere it imports, is required, type-checks and runs as a command', async (t) => {
  t.timeout(600_000)
  const app = await install(t)
  if (app === null) return t.pass('the registry cannot be reached')
  const run = (command: string, args: string[]) => execa(command, args, { cwd: app, preferLocal: true })

  const names = 'console.log(typeof ssrl.SsrlError)'
  const imported = await run('node', ['--input-type=module', '-e', `import * as ssrl from 'ssrl'; ${names}`])
  t.is(imported.stdout, 'function')
  const required = await run('node', ['-e', `const ssrl = require('ssrl'); ${names}`])
  t.is(required.stdout, 'function')
  t.is(required.stderr, '')

  const help = await run('npx', ['ssrl', '--help'])
  t.regex(help.stdout, /Usage: ssrl/)
  const addon = path.join(app, 'node_modules/ssrl/build/Release/ssrl.node')
  await t.notThrowsAsync(
    run('node', ['-e', `require(${JSON.stringify(addon)})`]),
    'the install script built the addon',
  )

  await writeFile(path.join(app, 'tiny.mjs'), tinyPolicyScript)
  await run('node', ['tiny.mjs'])
  const flags = [
    '--policy',
    'tiny',
    '--prompt',
    'Where was she born?',
    '--max-new-tokens',
    '5',
    '--seed',
    '1',
  ]
  const generated = await run('npx', ['ssrl', 'generate', ...flags, '--json'])
  const again = await run('npx', ['ssrl', 'generate', ...flags, '--json'])
  t.regex(generated.stdout, /"logProbs"/)
  t.is(generated.stdout, again.stdout)

  await writeFile(
    path.join(app, 'use.mts'),
    "import { SsrlError } from 'ssrl'\nexport const code: string = new SsrlError('ERR_IO', '').code\n",
  )
  const tsc = path.resolve('node_modules/.bin/tsc')
  await t.notThrowsAsync(
    run(tsc, ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2022', 'use.mts']),
  )
  t.regex(await readFile(path.join(app, 'node_modules/ssrl/package.json'), 'utf8'), /Apache-2\.0/)
})
