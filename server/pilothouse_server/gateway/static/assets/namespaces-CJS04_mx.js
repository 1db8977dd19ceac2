import{e}from"./namespace_pb-Ch8ISueJ.js";import{H as a}from"./index-IOb0Zg2e.js";const o=a(e);export{o as n};
