/** The variables that every command honours, as `ssrl --help` shows them. */
const variables: [name: string, meaning: string][] = [
  ['SSRL_THREADS', 'compute threads (default: one for each physical core that the process may use)'],
  ['SSRL_DEVICE', 'where to compute: auto or cpu'],
  ['SSRL_CPU', 'use no instructions beyond avx2 or avx512; amx: multiply as on CPUs that have it'],
  ['SSRL_MEMORY', 'use no more memory than this: bytes, or such as 2GB or 500MB'],
  ['SSRL_API_KEY', 'the key that requests to ssrl serve must carry (default: none)'],
  ['HF_HOME', 'where downloaded models are kept'],
  ['HF_ENDPOINT', 'the hub to download from'],
  ['HF_TOKEN', 'the access token for the hub'],
  ['NO_COLOR', 'no colours'],
]

export function environmentHelp(): string {
  const width = Math.max(...variables.map(([name]) => name.length))
  const lines = variables.map(([name, meaning]) => `  ${name.padEnd(width)}  ${meaning}`)
  return ['Environment:', ...lines].join('\n')
}
