import preact from '@preact/preset-vite'
import { defineConfig } from 'vite'

// The built page is committed, so its names and bytes depend on the sources alone.
export default defineConfig({
  base: './',
  plugins: [preact({ prefreshEnabled: false, devToolsEnabled: false })],
  build: {
    modulePreload: false,
    assetsInlineLimit: 0,
    rollupOptions: {
      output: { entryFileNames: '[name].js', chunkFileNames: '[name].js', assetFileNames: '[name][extname]' },
    },
  },
  worker: { format: 'iife', rollupOptions: { output: { entryFileNames: '[name].js' } } },
})
