/**
 * Counts the Vulkan devices of this machine without asking WebGPU.
 *
 * Why by FFI and not by a short Deno process that calls requestAdapter(): a process costs 70 to 300 ms at every
 * start, and Deno.execPath() is the embedding program itself once that is compiled. Two FFI calls cost 1 to 2 ms where
 * there is no Vulkan; where there is, they load the driver that WebGPU loads anyway. It also cannot mistake the
 * OpenGL fallback of WebGPU, which lacks f16, for a Vulkan device.
 * @module
 */

// VkInstanceCreateInfo on a 64-bit machine: 64 bytes, sType 1 (VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO), all else null.
const INSTANCE_CREATE_INFO_BYTES = 64;
const INSTANCE_CREATE_INFO_TYPE = 1;
const VK_SUCCESS = 0;

const VULKAN_SYMBOLS = {
  vkCreateInstance: { parameters: ["buffer", "pointer", "buffer"], result: "i32" },
  vkEnumeratePhysicalDevices: { parameters: ["pointer", "buffer", "pointer"], result: "i32" },
  vkDestroyInstance: { parameters: ["pointer", "pointer"], result: "void" },
} as const;

/**
 * Says how many devices the Vulkan loader of the system lists, a software device of the system included. It obeys
 * VK_DRIVER_FILES as WebGPU will, and leaves nothing open.
 *
 * @returns the number of devices; 0 where there is no loader or no driver
 * @throws {Deno.errors.NotCapable} without --allow-ffi
 */
export function countVulkanDevices(): number {
  const vulkan = openLoader();
  if (vulkan === undefined) return 0;
  try {
    return countWithLoader(vulkan.symbols);
  } finally {
    vulkan.close();
  }
}

type VulkanLoader = Deno.DynamicLibrary<typeof VULKAN_SYMBOLS>;

function openLoader(): VulkanLoader | undefined {
  try {
    return Deno.dlopen("libvulkan.so.1", VULKAN_SYMBOLS);
  } catch (error) {
    // A missing library is the expected answer on a machine without Vulkan; a missing permission is a mistake.
    if (error instanceof Deno.errors.NotCapable) throw error;
    return undefined;
  }
}

function countWithLoader(symbols: VulkanLoader["symbols"]): number {
  const createInfo = new Uint8Array(INSTANCE_CREATE_INFO_BYTES);
  new DataView(createInfo.buffer).setUint32(0, INSTANCE_CREATE_INFO_TYPE, true);
  const instanceOut = new BigUint64Array(1);
  if (symbols.vkCreateInstance(createInfo, null, instanceOut) !== VK_SUCCESS) return 0;
  const instance = Deno.UnsafePointer.create(instanceOut[0]);
  try {
    const count = new Uint32Array(1);
    const result = symbols.vkEnumeratePhysicalDevices(instance, count, null);
    return result === VK_SUCCESS ? count[0] : 0;
  } finally {
    symbols.vkDestroyInstance(instance, null);
  }
}
