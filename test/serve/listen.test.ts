import test from 'ava'
import { Hono } from 'hono'
import { listen } from '../../lib/serve/listen.ts'

test('nobody but this machine is served unless told otherwise, and a taken port is ERR_NETWORK', async (t) => {
  const server = await listen(new Hono(), { port: 0 })
  t.teardown(() => server.close())
  t.regex(server.url, /^http:\/\/127\.0\.0\.1:\d+$/)
  const port = Number(new URL(server.url).port)
  await t.throwsAsync(listen(new Hono(), { port }), { code: 'ERR_NETWORK', message: /127\.0\.0\.1/ })
  const everywhere = await listen(new Hono(), { port: 0, host: '0.0.0.0' })
  t.regex(everywhere.url, /^http:\/\/0\.0\.0\.0:/)
  await everywhere.close()
})
