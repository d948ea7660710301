"""The Vulkan drivers here, by Vulkan's own account; a known fault of one is named."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
import struct
import sys
from collections.abc import Sequence

MESA_FIXED = 25
"""The first Mesa in which ggml's Vulkan backend was seen to run without a double free."""

_INSTANCE_CREATE_INFO, _APPLICATION_INFO = 1, 0
_PROPERTIES_2, _DRIVER_PROPERTIES = 1000059001, 1000196000
_VERSION_1_2 = (1 << 22) | (2 << 12)
# Offsets in VkPhysicalDeviceDriverProperties: name and info follow sType, pNext and the driver's id
_NAME, _INFO, _TEXT = 20, 276, 256
_LARGER_THAN_ANY = 4096


def drivers() -> list[str]:
    """Return each device's driver as it names itself, such as 'llvmpipe Mesa 22.3.6'.

    Empty where there is no Vulkan, or only one too old to tell.
    """
    name = ctypes.util.find_library("vulkan") or {"linux": "libvulkan.so.1"}.get(sys.platform)
    try:
        vulkan = ctypes.CDLL(name) if name else None
    except OSError:
        vulkan = None
    if vulkan is None or not hasattr(vulkan, "vkGetPhysicalDeviceProperties2"):
        return []
    instance = _instance(vulkan)
    if instance is None:
        return []
    try:
        return [_driver(vulkan, device) for device in _devices(vulkan, instance)]
    finally:
        vulkan.vkDestroyInstance(instance, None)


def faulty_mesa(found: Sequence[str]) -> str:
    """Return the Mesa among some drivers that ends the process, '' if there is none."""
    for driver in found:
        version = re.search(r"Mesa (\d+)[\d.]*", driver)
        if version and int(version[1]) < MESA_FIXED:
            return version[0]
    return ""


def _instance(vulkan: ctypes.CDLL) -> ctypes.c_void_p | None:
    application = struct.pack("@iPPIPII", _APPLICATION_INFO, 0, 0, 0, 0, 0, _VERSION_1_2)
    held = ctypes.create_string_buffer(application, len(application) + 8)
    info = struct.pack("@iPIPIPIP", _INSTANCE_CREATE_INFO, 0, 0, ctypes.addressof(held), 0, 0, 0, 0)
    instance = ctypes.c_void_p()
    status = vulkan.vkCreateInstance(ctypes.c_char_p(info), None, ctypes.byref(instance))
    return instance if status == 0 else None


def _devices(vulkan: ctypes.CDLL, instance: ctypes.c_void_p) -> list[ctypes.c_void_p]:
    n = ctypes.c_uint32(0)
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(n), None)
    handles = (ctypes.c_void_p * n.value)()
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(n), handles)
    return [ctypes.c_void_p(handle) for handle in handles]


def _driver(vulkan: ctypes.CDLL, device: ctypes.c_void_p) -> str:
    properties = ctypes.create_string_buffer(_LARGER_THAN_ANY)
    driver = ctypes.create_string_buffer(_LARGER_THAN_ANY)
    struct.pack_into("@iP", driver, 0, _DRIVER_PROPERTIES, 0)
    struct.pack_into("@iP", properties, 0, _PROPERTIES_2, ctypes.addressof(driver))
    vulkan.vkGetPhysicalDeviceProperties2(device, properties)
    texts = (driver.raw[at : at + _TEXT].split(b"\0")[0] for at in (_NAME, _INFO))
    return " ".join(text.decode("utf-8", "replace") for text in texts)
