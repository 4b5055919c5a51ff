// The CID that npm ipfs-unixfs-importer gives each path: node js_import.mjs NODE_MODULES OPTIONS PATH...
import { createReadStream, readdirSync, statSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { pathToFileURL } from 'node:url'

const [modules, optionsText, ...paths] = process.argv.slice(2)
const load = async (name) => import(pathToFileURL(resolve(name)).href)

function resolve (name) {
  const [scope] = name.split('/')
  const manifest = JSON.parse(readFileSync(join(modules, scope, 'package.json')))
  const key = name === scope ? '.' : './' + name.slice(scope.length + 1)
  const entry = manifest.exports[key]
  return join(modules, scope, typeof entry === 'string' ? entry : (entry.import.default ?? entry.import))
}

const { importer } = await load('ipfs-unixfs-importer')
const { fixedSize } = await load('ipfs-unixfs-importer/chunker')
const { balanced, trickle } = await load('ipfs-unixfs-importer/layout')

const options = JSON.parse(optionsText)
const layout = options.layout === 'trickle' ? trickle : balanced
const blockstore = { async put (cid) { return cid } }
const settings = () => ({
  cidVersion: options.cidVersion,
  rawLeaves: options.rawLeaves,
  // as in Kubo: a trickle root is always an inner node, and its dag-pb leaves have type Raw
  reduceSingleLeafToSelf: options.layout !== 'trickle',
  leafType: options.layout === 'trickle' ? 'raw' : 'file',
  wrapWithDirectory: false,
  chunker: fixedSize({ chunkSize: options.chunk ?? 262144 }),
  layout: layout({ maxChildrenPerNode: options.maxChildren ?? 174 })
})

function * candidates (path) {
  if (!statSync(path).isDirectory()) {
    yield { path: basename(path), content: createReadStream(path) }
    return
  }
  for (const name of readdirSync(path)) {
    yield { path: `${basename(path)}/${name}`, content: (async function * () { yield readFileSync(join(path, name)) })() }
  }
}

for (const path of paths) {
  let last
  for await (const entry of importer(candidates(path), blockstore, settings())) {
    last = entry
  }
  console.log(`${path}\t${last.cid}`)
}
