import{e}from"./namespace_pb-DbxaXJA_.js";import{H as a}from"./index-DKpCAZPJ.js";const o=a(e);export{o as n};
